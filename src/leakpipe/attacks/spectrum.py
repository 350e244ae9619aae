"""Candidates as weighted cosine coefficients: a step moves coarse structure further than fine.

Natural images have more power at low frequencies. Adam gives every variable the same step; as pixels that is
white noise, as coefficients c of x̂ = Dᵀ (s ∘ c) D, with D the orthonormal cosine transform (DCT-II) and s falling
with frequency, it is smooth (decorrelated parameterisations: Olah, Mordvintsev, Schubert 2017).
"""

import math
from functools import cache

import torch
from torch import Tensor

VOLUME = 3  # axes of a volume


def to_coefficients(images: Tensor, decay: float, *, axes: int = 2) -> Tensor:
    """Weighted coefficients of images of shape (…, height, width), or of volumes; same shape.

    Args:
        images: Shape (…, *sides).
        decay: Exponent of the frequency.
        axes: How many of the last axes are sides: 2, or 3 of a volume.
    """
    sides = images.shape[-axes:]
    rows, columns = cosine_basis(sides[-2]).to(images), cosine_basis(sides[-1]).to(images)
    found = rows @ images @ columns.T
    if axes == VOLUME:
        found = torch.einsum("kd,...dhw->...khw", cosine_basis(sides[0]).to(images), found)
    return found / _weights(tuple(sides), decay).to(images)


def from_coefficients(coefficients: Tensor, decay: float, *, axes: int = 2) -> Tensor:
    """Inverse of `to_coefficients`."""
    sides = coefficients.shape[-axes:]
    rows, columns = cosine_basis(sides[-2]).to(coefficients), cosine_basis(sides[-1]).to(coefficients)
    found = coefficients * _weights(tuple(sides), decay).to(coefficients)
    if axes == VOLUME:
        found = torch.einsum("kd,...khw->...dhw", cosine_basis(sides[0]).to(coefficients), found)
    return rows.T @ found @ columns


@cache
def cosine_basis(size: int) -> Tensor:
    """The orthonormal DCT-II matrix, float64 of shape (size, size): row k has frequency k."""
    frequency = torch.arange(size, dtype=torch.float64, device="cpu")[:, None]
    place = torch.arange(size, dtype=torch.float64, device="cpu")[None] + 0.5
    basis = torch.cos(math.pi / size * frequency * place) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis


@cache
def _weights(sides: tuple[int, ...], decay: float) -> Tensor:
    """Weight of each coefficient, its frequency (at least one cycle an image) to the power −decay, of mean 1."""
    squares = torch.zeros(sides, dtype=torch.float64, device="cpu")
    for axis, side in enumerate(sides):
        cycles = torch.arange(side, dtype=torch.float64, device="cpu") / (2 * side)
        squares = squares + cycles.square().view([-1 if other == axis else 1 for other in range(len(sides))])
    frequency = squares.sqrt().clamp_min(1 / max(sides))
    weights = frequency**-decay
    return weights / weights.mean()
