"""The gradient step: G = Σ_p Δ_p ⊗ P_p is linear in Δ for a known map, and linear in the map for a known Δ.

Where a layer has no more positions than its patches have entries, a known map gives Δ without knowing any ReLU's mask:
`read_gradient`. Where 9·(channels out) is at least the number of positions, a known gradient behind batch
normalisation gives the map: `solve_inner`.
"""

import torch
from torch import Tensor
from torch.nn.functional import unfold

from leakpipe.attacks.recursive.layer import Layer
from leakpipe.attacks.recursive.nonnegative import solve_nonnegative

RIDGE = 1e-13  # of the largest eigenvalue of a normal matrix: rounding, not a regulariser
ROUNDS = 40  # of the fixed-point iteration for ẑ, in one call
SETTLED = 1e-5  # relative change of the map that ends it


def can_read_gradient(layer: Layer) -> bool:
    """Returns whether the centred patches of a known map are, in general, linearly independent."""
    return layer.positions - 1 <= layer.weight[0].numel()


def read_gradient(layer: Layer, features: Tensor) -> Tensor:
    """Returns Δ, the gradient before batch normalisation, shape of the output, given what the layer reads.

    Least squares on G = Δᵀ·(P − mean P): centring changes nothing where Δ sums to zero over the positions, as batch
    normalisation makes it, and the solution of least norm then does so as well.
    """
    patches = layer.patches(features)
    centred = patches - patches.mean(dim=0)
    inverse = torch.linalg.pinv(centred @ centred.T, hermitian=True, rtol=RIDGE)
    return layer.as_map(inverse @ (centred @ layer.gradient.flatten(1).T))


def can_solve_inner(layer: Layer) -> bool:
    """Returns whether there are at least as many gradient equations as unknowns, for every channel."""
    return layer.stride == 1 and layer.weight[:, 0].numel() >= layer.positions


def gradient_matrix(layer: Layer, before: Tensor) -> Tensor:
    """Returns the matrix whose product with one channel of a map is its part of the weight gradient.

    Args:
        layer: Of stride 1, so that input and output have the same positions.
        before: Δ, shape of the output.

    Returns:
        Shape (channels out, kernel², positions); every channel in has the same.
    """
    kernel, channels = layer.kernel, before.shape[1]
    taps = unfold(before, kernel, padding=kernel - 1 - layer.padding).transpose(1, 2).flatten(0, 1)
    return taps.view(-1, channels, kernel**2).flip(-1).permute(1, 2, 0)


def solve_inner(layer: Layer, received: Tensor, trusted: Tensor, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Returns the map that the layer read, given the gradient behind its batch normalisation.

    Δ depends on the map through ẑ, so that nonnegative least squares and a forward pass take turns until nothing
    changes.

    Args:
        layer: With enough equations (`can_solve_inner`).
        received: Gradient behind batch normalisation, shape of the output.
        trusted: Weight of each channel's equations, shape (channels out,): 0 where `received` may be wrong.
        start: Of the map; without one, ẑ starts at 0.

    Returns:
        The nonnegative map, and the solution without that constraint, whose entries below 0 tell its noise.
    """
    features, normalised = start, torch.zeros_like(received)
    wanted = layer.gradient.permute(0, 2, 3, 1) * trusted[:, None, None, None]
    batch, channels, height, width = layer.input_shape
    normal = right = torch.empty(0)
    for _ in range(ROUNDS):
        if features is not None:
            normalised = layer.normalise(layer.convolve(features))
        matrix = gradient_matrix(layer, layer.enter(received, normalised)) * trusted[:, None, None]
        rows = matrix.flatten(0, 1)
        normal, right = rows.T @ rows, rows.T @ wanted.flatten(0, 2)
        normal.diagonal().add_(RIDGE * normal.diagonal().mean() + 1e-300)
        guess = None if features is None else features.transpose(0, 1).flatten(1).T
        found = _as_input(layer, solve_nonnegative(normal, right, guess))
        settled = features is not None and float((found - features).norm()) < SETTLED * float(found.norm())
        features = found
        if settled:
            break
    assert features is not None
    return features, _as_input(layer, torch.linalg.solve(normal, right))


def _as_input(layer: Layer, columns: Tensor) -> Tensor:
    batch, channels, height, width = layer.input_shape
    return columns.T.reshape(channels, batch, height, width).transpose(0, 1)
