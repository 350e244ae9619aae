"""How far a candidate's simulated update is from the observed one."""

import torch
from torch import Tensor

from leakpipe.models.state import Tensors


def cosine_distance(candidate: Tensors, observed: Tensors) -> Tensor:
    """1 − cos(angle) between two sets of weight differences taken as one long vector each.

    From 0 (same direction) to 2 (opposite). Sums run in float64: over millions of weights a float32
    cosine is off by more than attacks need (paper.md measured 4.5e-3). A zero vector has no direction:
    callers leave the term out when the observed update is zero; a zero candidate gives distance 1.

    Args:
        candidate: By name; may require a gradient.
        observed: Same names and shapes, not all zero.

    Returns:
        A float64 scalar.
    """
    pairs = [(candidate[name].flatten().double(), value.flatten().double()) for name, value in observed.items()]
    product = sum_all([mine.dot(theirs) for mine, theirs in pairs])
    mine_squared = sum_all([mine.dot(mine) for mine, _ in pairs])
    theirs_squared = sum_all([theirs.dot(theirs) for _, theirs in pairs])
    squared = mine_squared * theirs_squared
    has_direction = squared > 0  # chosen twice: a branch not taken still passes its gradient's NaN on
    norms = torch.where(has_direction, squared, 1.0).sqrt()
    return 1 - torch.where(has_direction, product / norms, 0.0)


def sum_all(values: list[Tensor]) -> Tensor:
    """Sum of scalars (at least one)."""
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total
