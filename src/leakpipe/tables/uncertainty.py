"""How sure a mean is: a bootstrap interval that knows which values belong together."""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, stdtrit  # scipy.stats has them too, and takes a second to import

from leakpipe.errors import LeakpipeError

FEWEST_CLUSTERS = 3


def bootstrap_mean(
    values: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int,
) -> tuple[float, float]:
    """Interval of the mean: expanded percentile bootstrap (Hesterberg 2015, "What Teachers Should Know …") of clusters.

    Values of one cluster (images of one draw share victims, network and prior) vary together, so clusters are resampled
    whole, and the interval is as wide as clusters differ, however many values each holds. Its ends are quantiles of
    resampled means: they stay inside the range of the values. A plain percentile interval of few clusters is too
    short, and BCa no longer (both cover 85 % for 5 normal values); the expanded one takes quantiles further out.

    How often the 95 % interval of n clusters held the true mean (4000 repetitions, ± 0.01):

        n                3     4     5     8     10    20    30    50    100
        normal           0.75  0.87  0.93  0.94  0.94  0.95  0.95  0.95  0.95
        beta(8, 2)       0.74  0.87  0.91  0.93  0.94  0.94  0.95  0.95  0.95
        exponential      0.69  0.82  0.86  0.90  0.90  0.92  0.94  0.94  0.94
        lognormal        0.64  0.77  0.82  0.84  0.85  0.88  0.88  0.91  0.92

    So from 8 clusters on where values are about symmetric or bounded as SSIM is, from 30 where they are as skewed as
    waiting times, and not yet with 100 where a few huge values make the mean. With 3 or 4 clusters the interval is
    from the smallest to the largest cluster, and cannot cover more.

    Args:
        values: Shape (values,), finite.
        clusters: Label of each value's cluster, same shape; without, every value is its own.
        confidence: Share of intervals that should hold the mean, between 0 and 1.
        resamples: How many times the clusters are drawn.
        seed: The same values, clusters and seed give the same interval.

    Returns:
        Low and high end of the mean over all values; both NaN for fewer than 3 clusters.

    Raises:
        LeakpipeError: Where shapes differ or a value is not finite.
    """
    numbers = np.asarray(values, dtype=np.float64)
    labels = np.arange(numbers.size) if clusters is None else np.asarray(clusters)
    if numbers.ndim != 1 or labels.shape != numbers.shape:
        raise LeakpipeError(f"values {numbers.shape} and clusters {labels.shape} must be two lists of one length")
    if not np.isfinite(numbers).all():
        raise LeakpipeError("a mean has an interval only where all its values are finite")
    _, members = np.unique(labels, return_inverse=True)
    sizes, sums = np.bincount(members), np.bincount(members, weights=numbers)
    if len(sizes) < FEWEST_CLUSTERS:
        return math.nan, math.nan
    drawn = np.random.default_rng(seed).integers(len(sizes), size=(resamples, len(sizes)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    tail = _expanded_tail((1 - confidence) / 2, len(sizes))
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _expanded_tail(tail: float, count: int) -> float:
    """Share of resampled means to leave out at each end, so that the interval is as long as Student's would be."""
    return float(ndtr(math.sqrt(count / (count - 1)) * stdtrit(count - 1, tail)))
