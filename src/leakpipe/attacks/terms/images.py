"""Terms of what candidates should look like besides explaining the update.

Images have shape (images, channels, height, width), volumes (images, channels, depth, height, width), and are in
[0, 1]; every term is a scalar, at least 0.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from leakpipe.attacks.distances import TINY, smooth_norm
from leakpipe.attacks.problem import Problem
from leakpipe.attacks.terms.term import Candidates, SimpleTerm, Term

START, END = slice(1, None), slice(-1)  # without the first pixels, without the last


def _cut(images: Tensor, sides: Mapping[int, slice]) -> Tensor:
    return images[tuple(sides.get(axis, slice(None)) for axis in range(images.dim()))]


def anisotropic_total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference of vertical plus of horizontal neighbours, of volumes in depth, too; 0 for constants."""
    means = [(_cut(images, {axis: START}) - _cut(images, {axis: END})).abs().mean() for axis in range(2, images.dim())]
    return sum(means[1:], means[0])


def isotropic_total_variation(images: Tensor) -> Tensor:
    """Mean length of the gradient (difference to the pixel below, to the right, of volumes behind); 0 for constants.

    Over the pixels that have all neighbours (Rudin, Osher, Fatemi 1992).
    """
    axes = range(2, images.dim())
    corner = _cut(images, dict.fromkeys(axes, END))
    squares = [(_cut(images, {**dict.fromkeys(axes, END), axis: START}) - corner).square() for axis in axes]
    lengths = torch.sqrt(sum(squares[1:], squares[0]) + TINY)
    return (lengths - math.sqrt(TINY)).mean()


def double_opponents_total_variation(images: Tensor) -> Tensor:
    """Isotropic total variation over the colours and their differences together (Geiping's later recipe).

    The differences (red − green, green − blue, blue − red) keep edges of the three colours at one place. They
    are 0 for gray images, whose value is half the isotropic one.
    """
    return isotropic_total_variation(torch.cat([images, images - images.roll(-1, dims=1)], dim=1))


TOTAL_VARIATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "anisotropic": anisotropic_total_variation,
    "isotropic": isotropic_total_variation,
    "double-opponents": double_opponents_total_variation,
}


def l2_norm(images: Tensor) -> Tensor:
    """Mean over images of the L2 norm ‖x̂‖₂ (Yin 2021; Hatamizadeh 2023)."""
    return torch.stack([smooth_norm(image) for image in images]).mean()


def prior_distance(images: Tensor, prior: Tensor) -> Tensor:
    """Mean squared distance to the prior images, of the same shape."""
    return (images - prior).square().mean()


def group_distance(images: Tensor, consensus: Tensor) -> Tensor:
    """Mean squared distance to the mean over restarts (group consistency, Yin 2021, without registration).

    Args:
        images: One restart's candidates.
        consensus: Mean of all restarts' candidates, same shape; a constant.
    """
    return (images - consensus).square().mean()


def image_terms(problem: Problem) -> list[Term]:
    """Total variation, which is always measured, and those of the other terms that have a weight."""
    settings, prior = problem.settings, problem.observation.candidate_prior
    variation = TOTAL_VARIATIONS[settings.total_variation]

    def total_variation(candidates: Candidates) -> Tensor:
        value, distance = variation(candidates.images), candidates.explained.distance
        return value * distance if settings.total_variation_scale == "distance" and distance is not None else value

    def group(candidates: Candidates) -> Tensor:
        assert candidates.consensus is not None  # the search has one where the term has a weight
        return group_distance(candidates.images, candidates.consensus)

    terms: list[Term] = [SimpleTerm("total_variation", settings.total_variation_weight, total_variation)]
    if settings.l2_weight > 0:
        terms.append(SimpleTerm("l2_norm", settings.l2_weight, lambda candidates: l2_norm(candidates.images)))
    if settings.prior_weight > 0 and prior is not None:
        terms.append(SimpleTerm("prior_distance", settings.prior_weight, lambda c: prior_distance(c.images, prior)))
    if settings.group_weight > 0:
        terms.append(SimpleTerm("group_distance", settings.group_weight, group))
    return terms
