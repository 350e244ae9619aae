"""The maps of several images, told apart: the null space of a batch holds every mixture of them.

With X_1, …, X_B the images' maps, the null space is spanned by them, so that a unit's values in any basis of it are
y = Σ_i X_i(unit)·w_i: a nonnegative combination of B vectors w_i, which are the same for all units. Units at which one
image alone is active lie on the rays of these; a separable nonnegative factorisation finds them (successive projection,
Araújo et al. 2001; Gillis and Vavasis 2014). Then X_i is, up to its scale, the mixture that is 0 where image i is off,
which half of all units tell. What the mean patch adds to the rows of the gradient is one vector for all
images, which gives their scales relative to each other.
"""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment, linprog
from torch import Tensor

from leakpipe.attacks.recursive.layer import Layer
from leakpipe.attacks.recursive.masks import ON, estimate_noise
from leakpipe.attacks.recursive.nullspace import NullSpace, outside_patches

SAME = 1e6  # condition of the edges, above which two are one
MIXED = 0.1  # length of the entries below 0 relative to the maps', above which they are still mixtures
FEWEST_OFF = 0.05  # share of units at which an image must be off: fewer do not tell its map
STRONG = 0.02  # of the largest unit's length: what is shorter does not tell a direction
ROUNDS = 8


def unmix(layer: Layer, space: NullSpace) -> Tensor | None:
    """Returns each image's map, nonnegative up to noise and up to one scale for all; None if they cannot be told apart.

    Args:
        layer: That read the maps.
        space: Of as many dimensions as there are images.

    Returns:
        Shape (batch, channels, height, width), images in any order.
    """
    batch = layer.input_shape[0]
    if batch == 1:
        return space.vectors[:1]
    basis = space.vectors[:batch]
    units = basis.flatten(1).T.numpy(force=True) * np.sqrt(basis[0].numel())
    rays = _extreme_rays(units)
    if rays is None:
        return None
    maps = _scaled(layer, space, _as_maps(units @ np.linalg.inv(rays), basis))
    for _ in range(ROUNDS):
        noise = torch.stack([estimate_noise(each[None])[0] for each in maps])
        off = (maps < ON * noise).flatten(1).numpy(force=True)
        found = [np.linalg.eigh(units[each].T @ units[each])[1][:, 0] for each in off]
        mixed = _as_maps(units @ np.stack(found, axis=1), basis)
        maps = _scaled(layer, space, mixed * mixed.sum(dim=(1, 2, 3), keepdim=True).sign())
    told = off.mean(axis=1).min() >= FEWEST_OFF and float(maps.clamp_max(0).norm()) <= MIXED * float(maps.norm())
    return maps if told else None


def _as_maps(columns: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(columns.T)).to(like).view(like.shape)


def _extreme_rays(units: np.ndarray) -> np.ndarray | None:
    """Returns the extreme rays of the cone that the rows of `units` span, shape (rays, dimensions); None if none is.

    The rows are scaled to lie in a plane that cuts the cone, where they fill a simplex; its corners are the points
    that are farthest out, one after the other, in what the corners before leave over.
    """
    lengths = np.linalg.norm(units, axis=1)
    rows = units[lengths > STRONG * lengths.max()]
    directions = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    dimensions = units.shape[1]
    # the direction with the largest least angle to the plane: max t with ⟨row, a⟩ ≥ t
    plane = linprog(
        np.r_[np.zeros(dimensions), -1.0],
        A_ub=np.c_[-directions, np.ones(len(directions))],
        b_ub=np.zeros(len(directions)),
        bounds=[(-1, 1)] * dimensions + [(None, None)],
    )
    if plane.x is None or not plane.x[-1] > 0:
        return None
    points = directions / (directions @ plane.x[:-1])[:, None]
    left, corners = points.copy(), []
    for _ in range(dimensions):
        corner = int(np.argmax(np.square(left).sum(axis=1)))
        corners.append(points[corner])
        along = left[corner] / max(float(np.linalg.norm(left[corner])), np.finfo(float).tiny)
        left -= np.outer(left @ along, along)
    rays = np.array(corners)
    return rays if np.isfinite(rays).all() and np.linalg.cond(rays) < SAME else None


def _scaled(layer: Layer, space: NullSpace, maps: Tensor) -> Tensor:
    """Returns the maps scaled so that each one's mean patch leaves the rows of the gradient alike."""
    left = torch.stack([outside_patches(layer, space.rows, each[None]).mean(dim=0) for each in maps])
    common: Tensor = torch.linalg.svd(left, full_matrices=False)[2][0]
    return maps / (left @ common).abs()[:, None, None, None]


def order_like(reference: Tensor, maps: Tensor) -> Tensor:
    """Returns the order of images in which `maps` resemble `reference` most.

    What all images have in common says nothing of the order and is taken out.

    Args:
        reference: Shape (batch, channels, height, width).
        maps: Same shape.

    Returns:
        Positions among `maps`, int64 of shape (batch,).
    """
    ours, theirs = (
        torch.nn.functional.normalize((value - value.mean(dim=0)).flatten(1), dim=1) for value in (reference, maps)
    )
    _, order = linear_sum_assignment((ours @ theirs.T).numpy(force=True), maximize=True)
    return torch.from_numpy(order).to(maps.device)
