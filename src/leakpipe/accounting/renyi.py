"""Rényi accounting of Poisson-sampled Gaussian releases, as in DP-SGD libraries."""

import numpy as np
from scipy.special import gammaln, logsumexp

from leakpipe.errors import LeakpipeError

ORDERS = (*range(2, 65), 80, 96, 128, 192, 256, 384, 512)


def sampled_gaussian_rdp(order: int, *, rate: float, noise_multiplier: float) -> float:
    """Returns the add-or-remove-one RDP of a Poisson-sampled Gaussian (Mironov, Talwar, Zhang 2019, section 3.3).

    Args:
        order: α, a whole number ≥ 2.
        rate: Probability that an example is in the sample, in [0, 1]; at 1 the RDP is α / (2z²).
        noise_multiplier: z > 0, the standard deviation over the norm that examples are clipped to.
    """
    if not 0 <= rate <= 1:
        raise LeakpipeError(f"sampling rate {rate!r} must lie in [0, 1]")
    if rate == 1:
        return order / (2 * noise_multiplier**2)
    k = np.arange(order + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        in_sample = np.where(k > 0, k * np.log(rate), 0.0)
    terms = gammaln(order + 1) - gammaln(k + 1) - gammaln(order - k + 1)
    terms += in_sample + (order - k) * np.log1p(-rate) + k * (k - 1) / (2 * noise_multiplier**2)
    return float(logsumexp(terms)) / (order - 1)


def sampled_gaussian_epsilon(*, rate: float, noise_multiplier: float, steps: int, delta: float) -> float:
    """Returns ε at δ after `steps` Poisson-sampled Gaussian releases, the smallest over integer orders.

    RDP is converted as in Balle, Barthe, Gaboardi, Hsu, Sato 2020, theorem 21: an upper bound on ε, some per cent
    above the exact value.
    """
    found = [
        steps * sampled_gaussian_rdp(order, rate=rate, noise_multiplier=noise_multiplier)
        + np.log1p(-1 / order)
        - (np.log(delta) + np.log(order)) / (order - 1)
        for order in ORDERS
    ]
    return max(0.0, float(min(found)))
