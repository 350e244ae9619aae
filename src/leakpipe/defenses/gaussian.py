"""The paper's calibrated Gaussian noise (`GaussianPrivacy`)."""

import torch
from torch import Tensor

from leakpipe.federation.local import ClientUpdate
from leakpipe.params_defenses import GaussianParams


def add_gaussian_noise(update: ClientUpdate, params: GaussianParams, *, generator: torch.Generator) -> ClientUpdate:
    """Add N(0, (σ0·p)²) to every value of the update, running statistics included, counters not.

    p is a percentile (the paper: the 95th) of the absolute NON-ZERO values of the whole update. An
    all-zero update has no such value and is returned as it is. This is calibrated noise, not
    differential privacy: nothing bounds the sensitivity.
    """
    scale = params.sigma0 * nonzero_percentile(update, params.percentile)

    def noisy(value: Tensor) -> Tensor:
        return value + scale * torch.randn(value.shape, generator=generator, dtype=value.dtype)

    return ClientUpdate(
        weights={name: noisy(value) for name, value in update.weights.items()},
        statistics={name: noisy(value) for name, value in update.statistics.items()},
        steps=update.steps,
    )


def nonzero_percentile(update: ClientUpdate, percentile: float) -> float:
    """Percentile (linear interpolation) of the absolute non-zero values; 0 if all are zero."""
    values = torch.cat([value.flatten() for part in (update.weights, update.statistics) for value in part.values()])
    magnitudes = values[values != 0].abs().double().sort().values
    if len(magnitudes) == 0:
        return 0.0
    position = percentile / 100 * (len(magnitudes) - 1)
    below = int(position)
    above = min(below + 1, len(magnitudes) - 1)
    return torch.lerp(magnitudes[below], magnitudes[above], position - below).item()
