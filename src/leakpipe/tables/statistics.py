"""Uncertainty: bootstrap intervals of means, differences within draws with p-values, and their correction."""

import math
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, stdtrit  # scipy.stats has them too and takes half a second more to import

from leakpipe.errors import LeakpipeError

if TYPE_CHECKING:
    import pandas as pd  # slow to import, and the Snakefile reads the figures' modules on every start

FEWEST_CLUSTERS = 3
EXACT_DRAWS = 14  # up to so many draws, all sign changes are enumerated
ROUNDING = 1e-12  # sums that differ by less, relative to the largest, count as equal


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


@dataclass(frozen=True)
class PairedDifference:
    """Mean of the differences between two conditions over draws that both had.

    Attributes:
        difference: First minus second.
        low: Lower end of its 95 % interval, NaN for fewer than 3 draws.
        high: Upper end of the same.
        p: Of the sign-flip test, NaN for fewer than 3 draws.
        draws: How many.
    """

    difference: float
    low: float
    high: float
    p: float
    draws: int


def compare_draws(first: "pd.Series", second: "pd.Series", *, seed: int) -> PairedDifference:
    """Compare two conditions on the draws that both had, each draw (its means over images and rounds) one value.

    A draw shares its network, noise and victims between attacks and between defences, and at least its network
    between clients, so differences within draws vary less than the values. The interval is `bootstrap_mean` of the
    differences, the p-value `sign_flip_p` of the same: both speak of the mean difference.

    Args:
        first: One finite value per draw, indexed by draw (`draw_means`).
        second: The same of the other condition.
        seed: Of the resampling.

    Raises:
        LeakpipeError: No draw is common.
    """
    differences = (first - second).dropna().sort_index().to_numpy(dtype=np.float64)
    if differences.size == 0:
        raise LeakpipeError("two conditions without a common draw cannot be compared")
    low, high = bootstrap_mean(differences, seed=seed)
    enough = differences.size >= FEWEST_CLUSTERS
    p = sign_flip_p(differences, seed=seed) if enough else math.nan
    return PairedDifference(float(differences.mean()), low, high, p, differences.size)


def add_gain(leakage: "pd.DataFrame") -> "pd.DataFrame":
    """The leakage table with a column `gain`: how much higher SSIM is than the prior's, in [−2, 2]."""
    return leakage.assign(gain=leakage["ssim"] - leakage["ssim_prior"])


def draw_means(rows: "pd.DataFrame", measure: str) -> "pd.Series":
    """Mean of a measure over the rows (images, rounds) of each draw, indexed by seed."""
    return rows.groupby("seed", sort=True)[measure].mean()


def sign_flip_p(differences: ArrayLike, *, seed: int, resamples: int = 10_000) -> float:
    """Two-sided p-value of the mean difference: how often random signs give one as far from 0 (Fisher 1935).

    If the two conditions were exchangeable within a draw, each difference could as well have the other sign. Up to 14
    draws all signs are gone through; beyond, `resamples` are drawn and the observed ones counted with them, so that p
    is never 0. It tests the mean, the number that is reported, where Wilcoxon's test would test ranks.

    n draws cannot give less than 2 / 2ⁿ: 0.25 for 3, 0.063 for 5, 0.0078 for 8. Under 6 draws no difference, however
    large, has p < 0.05; the interval of the mean, which assumes more, can still exclude 0.

    Args:
        differences: Shape (draws,), finite, at least one.
        seed: Of the drawn signs.
        resamples: How many are drawn.
    """
    values = np.asarray(differences, dtype=np.float64)
    count = values.size
    if count <= EXACT_DRAWS:
        signs = np.array(list(product((1.0, -1.0), repeat=count)))
    else:
        drawn = np.random.default_rng(seed).integers(2, size=(resamples, count)) * 2.0 - 1
        signs = np.concatenate([np.ones((1, count)), drawn])
    sums = np.abs(signs @ values)
    return float(np.mean(sums >= sums[0] - ROUNDING * np.abs(values).sum()))


def holm(p_values: ArrayLike) -> np.ndarray:
    """Correct the p-values of one family of comparisons (Holm 1979): the chance of any false one stays below the level.

    Args:
        p_values: Shape (comparisons,); NaN stays NaN and does not count.

    Returns:
        Corrected p-values in the same order, at most 1, none below its own p-value.
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = [index for index in np.argsort(values, kind="stable") if not math.isnan(values[index])]
    corrected = np.full_like(values, math.nan)
    factors = len(order) - np.arange(len(order))
    corrected[order] = np.minimum(1, np.maximum.accumulate(factors * values[order]))
    return corrected
