"""Which of two is larger, and how sure that is: differences within draws, their interval, a p-value, a correction."""

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from leakpipe.errors import LeakpipeError
from leakpipe.tables.uncertainty import FEWEST_CLUSTERS, bootstrap_mean

EXACT_DRAWS = 14  # up to so many draws all sign changes are gone through
ROUNDING = 1e-12  # sums that differ by less, relative to the largest, are the same sum


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


def compare_draws(first: pd.Series, second: pd.Series, *, seed: int) -> PairedDifference:
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


def draw_means(rows: pd.DataFrame, measure: str) -> pd.Series:
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
