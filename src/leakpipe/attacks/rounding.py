"""Rounding of floating-point numbers, as updates show it."""

import torch
from torch import Tensor


def spacing(values: Tensor) -> Tensor:
    """Returns the distance of each number from the next larger one in its own precision, float64."""
    limits = torch.finfo(values.dtype)
    exponents = torch.frexp(values.abs().clamp_min(limits.smallest_normal).double()).exponent - 1
    distances: Tensor = limits.eps * torch.pow(2.0, exponents.double())
    return distances
