"""Rényi accounting of Poisson-sampled Gaussian releases, as in DP-SGD libraries."""

import numpy as np
from scipy.special import binom, log_ndtr, logsumexp

from leakpipe.errors import LeakpipeError

ORDERS = (*(1 + tenths / 10 for tenths in range(1, 100)), *range(11, 65), 80, 96, 128, 192, 256, 384, 512)
TERMS = 1000  # of the series beyond the order, where signs alternate and terms fall as index^(-order - 2)


def sampled_gaussian_rdp(order: float, *, rate: float, noise_multiplier: float) -> float:
    """Returns the add-or-remove-one RDP of a Poisson-sampled Gaussian (Mironov, Talwar, Zhang 2019, section 3.3).

    The moment of the ratio of densities is split where both parts of the mixture weigh the same, and each side is
    expanded by the binomial series. For a whole order the series ends, and the two sides add up to the closed form.

    Args:
        order: α > 1.
        rate: Probability that an example is in the sample, in [0, 1]; at 1 the RDP is α / (2z²).
        noise_multiplier: z > 0, the standard deviation over the norm that examples are clipped to.
    """
    if not 0 <= rate <= 1:
        raise LeakpipeError(f"sampling rate {rate!r} must lie in [0, 1]")
    if rate == 0:
        return 0.0
    if rate == 1:
        return order / (2 * noise_multiplier**2)
    absent, present = np.log1p(-rate), np.log(rate)
    split = noise_multiplier**2 * (absent - present) + 0.5
    k = np.arange(int(order) + TERMS)
    rest = order - k
    below = k * present + rest * absent + k * (k - 1) / (2 * noise_multiplier**2)
    above = rest * present + k * absent + rest * (rest - 1) / (2 * noise_multiplier**2)
    below += log_ndtr((split - k) / noise_multiplier)
    above += log_ndtr((rest - split) / noise_multiplier)
    moment = logsumexp(np.logaddexp(below, above), b=binom(order, k))
    return float(moment) / (order - 1)


def sampled_gaussian_epsilon(*, rate: float, noise_multiplier: float, steps: int, delta: float) -> float:
    """Returns ε at δ after `steps` Poisson-sampled Gaussian releases, the smallest over `ORDERS`.

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
