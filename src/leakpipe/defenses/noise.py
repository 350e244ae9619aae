"""Defences that add noise: the paper's (`GaussianPrivacy`), Laplace noise, and the client-level Gaussian mechanism."""

import torch
from torch import Tensor

from leakpipe.client.update import ClientUpdate
from leakpipe.defenses.clipping import scale_to_norm, withhold_statistics
from leakpipe.defenses.values import change_values, nonzero_percentile
from leakpipe.params.defenses import DpGaussianParams, GaussianParams, LaplaceParams


def add_gaussian_noise(update: ClientUpdate, params: GaussianParams, *, generator: torch.Generator) -> ClientUpdate:
    """Adds N(0, (σ0·p)²) to every value of the update, running statistics included, counters excluded.

    p is a percentile (in the paper the 95th) of the absolute NON-ZERO values of the whole update, whichever part
    gets the noise. An update of zeros has no such value and does not change. This is calibrated noise, not
    differential privacy: nothing bounds the sensitivity.
    """
    scale = params.sigma0 * nonzero_percentile(update, params.percentile)
    return change_values(update, lambda value: with_gaussian_noise(value, scale, generator), targets=params.targets)


def add_laplace_noise(update: ClientUpdate, params: LaplaceParams, *, generator: torch.Generator) -> ClientUpdate:
    """Adds Laplace noise of scale b (deviation √2·b) to every value; `clip_norm` first clips the L1 norm.

    With `clip_norm` C, `scale` b and noise on the whole update, one release is (C/b)-DP for the presence of the
    client and (2C/b)-DP for any change of its data (Dwork 2006). Without clipping there is no guarantee.
    """
    if params.clip_norm is not None:
        update = scale_to_norm(update, params.clip_norm, order=1)
    if params.scale is not None:
        scale = params.scale
    else:
        assert params.scale0 is not None  # one of the two is given
        scale = params.scale0 * nonzero_percentile(update, params.percentile)
    return change_values(update, lambda value: with_laplace_noise(value, scale, generator), targets=params.targets)


def privatize_update(update: ClientUpdate, params: DpGaussianParams, *, generator: torch.Generator) -> ClientUpdate:
    """Scales the update down to an L2 norm of at most C and adds N(0, (z·C)²) to every value (McMahan 2018).

    The norm is that of everything shared as ONE vector: weight differences, and those of running statistics unless
    they are withheld. The client adds the noise, so it protects against a server that sees single updates: the
    presence of the client changes what it sends by at most C, any change of its data by at most 2C.
    """
    if params.statistics == "withheld":
        update = withhold_statistics(update)
    clipped = scale_to_norm(update, params.clip_norm, order=2)
    scale = params.noise_multiplier * params.clip_norm
    return change_values(clipped, lambda value: with_gaussian_noise(value, scale, generator))


def with_gaussian_noise(value: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    """Returns the values plus N(0, scale²) each."""
    drawn = torch.randn(value.shape, generator=generator, dtype=value.dtype, device="cpu")
    return value + scale * drawn.to(value.device)


def with_laplace_noise(value: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    """Returns the values plus Laplace noise of that scale each.

    It is the difference of two exponential variables, which needs no logarithm of a number that may be 0.
    """
    drawn = torch.empty(2, *value.shape, dtype=torch.float64, device="cpu").exponential_(generator=generator)
    return value + (scale * (drawn[0] - drawn[1])).to(value)
