"""Defences that share less of an update: gradient compression, and sharing a part of its values.

None of them guarantees privacy. Error feedback is implemented in `leakpipe.defenses.compose`.
"""

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from leakpipe.client.update import ClientUpdate
from leakpipe.defenses.values import (
    batch_counters,
    change_values,
    find_percentile,
    flatten_values,
    named_values,
    unflatten_values,
)
from leakpipe.errors import LeakpipeError
from leakpipe.params.defenses import PartialSharingParams, QuantizeParams, SignParams, TopKParams


def keep_largest(update: ClientUpdate, params: TopKParams) -> ClientUpdate:
    """Keeps the k values of the update that are largest in magnitude and sets all others to 0 (Aji 2017; Lin 2018).

    k is `share` of all values, rounded, at least 1. Of equal magnitudes the first are kept, so that exactly k remain.
    """
    flat = flatten_values(update)
    kept = max(1, round(params.share * len(flat)))
    largest = flat.abs().sort(descending=True, stable=True).indices[:kept]
    sparse = torch.zeros_like(flat)
    sparse[largest] = flat[largest]
    return unflatten_values(sparse, update)


def quantize(update: ClientUpdate, params: QuantizeParams, *, generator: torch.Generator) -> ClientUpdate:
    """Rounds each tensor at random to L = 2^(bits−1) − 1 steps on each side of 0 (after Alistarh 2017, Wen 2017).

    If s is the tensor's largest magnitude, a value lies between two multiples of s/L and becomes the upper one with
    the probability that makes the rounding unbiased. The error is below s/L.
    """
    levels = 2 ** (params.bits - 1) - 1

    def rounded(value: Tensor) -> Tensor:
        step = value.abs().max().double() / levels
        if step == 0:
            return value
        position = value.double() / step
        below = position.floor()
        chance = torch.rand(value.shape, generator=generator, dtype=torch.float64, device="cpu").to(value.device)
        level: Tensor = ((below + (chance < position - below)) * step).to(value.dtype)
        return level

    return change_values(update, rounded)


def keep_signs(update: ClientUpdate, _params: SignParams) -> ClientUpdate:
    """Replaces each tensor by its signs times its mean magnitude (Bernstein 2018; scaled as Karimireddy 2019)."""
    return change_values(update, lambda value: value.sign() * value.abs().mean())


def share_partly(update: ClientUpdate, params: PartialSharingParams) -> ClientUpdate:
    """Shares only values above a percentile of all magnitudes, clipped (Shokri 2015).

    The percentile is over all values of the update, zeros included. A value is clipped to ±`clip` per local step, so
    to ±`clip`·steps in total. Tensors that match `exclude` are sent as 0.

    Raises:
        LeakpipeError: A pattern of `exclude` matches no tensor.
    """
    names = [name for name, _ in named_values(update)]
    for pattern in params.exclude:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise LeakpipeError(f"partial-sharing: exclude: {pattern!r} matches no tensor of the update")
    shared = keep_above_percentile(update, params.percentile, largest=params.clip)
    return replace(
        shared,
        weights={name: _hide(name, value, params.exclude) for name, value in shared.weights.items()},
        statistics={name: _hide(name, value, params.exclude) for name, value in shared.statistics.items()},
    )


def keep_above_percentile(
    update: ClientUpdate, percentile: float, *, largest: float, count_batches: bool = False
) -> ClientUpdate:
    """Sets values below a percentile of all magnitudes to 0 and clips the others to ±`largest` per local step.

    Args:
        count_batches: Whether the counters of batches are among the magnitudes.
    """
    flat = flatten_values(update)
    magnitudes = torch.cat([flat.abs(), batch_counters(update)]) if count_batches else flat.abs()
    cutoff, limit = find_percentile(magnitudes, percentile), largest * update.steps
    return unflatten_values(torch.where(flat.abs() < cutoff, 0.0, flat).clamp(-limit, limit), update)


def _hide(name: str, value: Tensor, patterns: Sequence[str]) -> Tensor:
    return torch.zeros_like(value) if any(fnmatchcase(name, pattern) for pattern in patterns) else value
