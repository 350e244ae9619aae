"""Candidates as weighted cosine coefficients: a step moves coarse structure further than fine.

Natural images have more power at low frequencies. Adam gives every variable the same step; as pixels that is
white noise, as coefficients c of x̂ = Dᵀ (s ∘ c) D, with D the orthonormal cosine transform (DCT-II) and s falling
with frequency, it is smooth (decorrelated parameterisations: Olah, Mordvintsev, Schubert 2017).
"""

import math
from functools import cache

import torch
from torch import Tensor


def to_coefficients(images: Tensor, decay: float) -> Tensor:
    """Weighted coefficients of images of shape (…, height, width); same shape."""
    height, width = images.shape[-2:]
    rows, columns = cosine_basis(height).to(images), cosine_basis(width).to(images)
    return (rows @ images @ columns.T) / _weights(height, width, decay).to(images)


def from_coefficients(coefficients: Tensor, decay: float) -> Tensor:
    """Inverse of `to_coefficients`."""
    height, width = coefficients.shape[-2:]
    rows, columns = cosine_basis(height).to(coefficients), cosine_basis(width).to(coefficients)
    return rows.T @ (coefficients * _weights(height, width, decay).to(coefficients)) @ columns


@cache
def cosine_basis(size: int) -> Tensor:
    """The orthonormal DCT-II matrix, float64 of shape (size, size): row k has frequency k."""
    frequency = torch.arange(size, dtype=torch.float64, device="cpu")[:, None]
    place = torch.arange(size, dtype=torch.float64, device="cpu")[None] + 0.5
    basis = torch.cos(math.pi / size * frequency * place) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis


@cache
def _weights(height: int, width: int, decay: float) -> Tensor:
    """Weight of each coefficient, its frequency (at least one cycle an image) to the power −decay, of mean 1."""
    vertical = torch.arange(height, dtype=torch.float64, device="cpu")[:, None] / (2 * height)
    horizontal = torch.arange(width, dtype=torch.float64, device="cpu")[None] / (2 * width)
    frequency = (vertical.square() + horizontal.square()).sqrt().clamp_min(1 / max(height, width))
    weights = frequency**-decay
    return weights / weights.mean()
