"""Bootstrap intervals: against enumeration and scipy, and how often they hold the truth."""

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from leakpipe.errors import LeakpipeError
from leakpipe.tables.comparisons import COMPARISON_COLUMNS, compare_attacks
from leakpipe.tables.statistics import bootstrap_mean

REPETITIONS = 2000
DRAWN: dict[str, tuple[Callable[..., np.ndarray], float]] = {
    "normal": (lambda rng, size: rng.standard_normal(size), 0.0),
    "beta": (lambda rng, size: rng.beta(8, 2, size), 0.8),
    "exponential": (lambda rng, size: rng.exponential(size=size), 1.0),
    "lognormal": (lambda rng, size: rng.lognormal(size=size), math.exp(0.5)),
}


def coverage(samples: np.ndarray, mean: float, *, clusters: np.ndarray | None = None) -> float:
    """Share of rows of `samples` whose 95 % interval holds `mean`."""
    intervals = [bootstrap_mean(row, clusters=clusters, resamples=1000, seed=i) for i, row in enumerate(samples)]
    return float(np.mean([low <= mean <= high for low, high in intervals]))


def expanded_tail(tail: float, count: int) -> float:
    return float(stats.norm.cdf(-math.sqrt(count / (count - 1)) * stats.t.ppf(1 - tail, count - 1)))


@pytest.mark.parametrize(("kind", "count"), [("normal", 10), ("normal", 20), ("beta", 20), ("exponential", 100)])
def test_intervals_cover_as_often_as_they_say(kind: str, count: int) -> None:
    draw, mean = DRAWN[kind]
    samples = draw(np.random.default_rng(count), (REPETITIONS, count))
    assert 0.93 <= coverage(samples, mean) <= 0.97


@pytest.mark.parametrize(
    ("kind", "count", "documented"), [("normal", 3, 0.75), ("normal", 4, 0.87), ("exponential", 10, 0.90),
                                      ("lognormal", 20, 0.88)]
)  # fmt: skip
def test_where_they_do_not_the_docstring_says_how_often(kind: str, count: int, documented: float) -> None:
    draw, mean = DRAWN[kind]
    samples = draw(np.random.default_rng(count), (REPETITIONS, count))
    assert coverage(samples, mean) == pytest.approx(documented, abs=0.02)


@pytest.mark.parametrize("method", ["percentile", "BCa"])
def test_plain_intervals_of_five_values_are_too_short(method: str) -> None:
    """Why the expanded one: five draws are what the experiments have."""
    samples = np.random.default_rng(5).standard_normal((REPETITIONS, 5))
    plain = stats.bootstrap(
        (samples,), np.mean, axis=1, n_resamples=1000, method=method, random_state=np.random.default_rng(0)
    ).confidence_interval
    assert np.mean((plain.low <= 0) & (plain.high >= 0)) < 0.88
    assert coverage(samples, 0.0) > 0.91


def test_images_of_a_draw_are_not_independent() -> None:
    """20 draws of 8 images that are much alike: counting each image by itself claims far too much."""
    rng = np.random.default_rng(0)
    draws, images = 20, 8
    shared = rng.standard_normal((REPETITIONS, draws, 1))
    samples = (shared + 0.3 * rng.standard_normal((REPETITIONS, draws, images))).reshape(REPETITIONS, -1)
    assert 0.93 <= coverage(samples, 0.0, clusters=np.repeat(np.arange(draws), images)) <= 0.97
    assert coverage(samples[:500], 0.0) < 0.6


@pytest.mark.parametrize("confidence", [0.5, 0.8])
def test_ends_are_quantiles_of_all_resamples(confidence: float) -> None:
    values, clusters = np.array([0.1, 0.9, 0.4, 0.5, 0.8, 0.3, 0.7]), list("abbacde")
    groups = [values[[label == name for label in clusters]] for name in "abcde"]
    means = [np.concatenate(chosen).mean() for chosen in product(groups, repeat=5)]
    tail = expanded_tail((1 - confidence) / 2, 5)
    found = bootstrap_mean(values, clusters=clusters, confidence=confidence, resamples=200_000, seed=0)
    assert found == pytest.approx(np.quantile(means, [tail, 1 - tail]), abs=0.005)


def test_equals_scipys_percentile_interval_at_the_expanded_level() -> None:
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 9, size=12)
    values, clusters = rng.random(sizes.sum()), np.repeat(np.arange(12), sizes)
    sums = np.bincount(clusters, weights=values)
    theirs = stats.bootstrap(
        (sums, sizes),
        lambda total, count, axis: total.sum(axis=axis) / count.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=100_000,
        confidence_level=1 - 2 * expanded_tail(0.025, 12),
        method="percentile",
        random_state=np.random.default_rng(2),
    ).confidence_interval
    found = bootstrap_mean(values, clusters=clusters, resamples=100_000, seed=3)
    assert found == pytest.approx((theirs.low, theirs.high), abs=0.005)


def test_of_many_values_it_is_students() -> None:
    values = np.random.default_rng(0).exponential(size=500)
    low, high = stats.t.interval(0.95, 499, values.mean(), stats.sem(values))
    assert bootstrap_mean(values, seed=0) == pytest.approx((low, high), abs=0.1 * (high - low))


def test_three_clusters_span_from_the_smallest_to_the_largest() -> None:
    values, clusters = [0.25, 0.75, 0.0, 0.0, 0.875], [7, 7, 1, 1, 4]
    assert bootstrap_mean(values, clusters=clusters, seed=0) == (0.0, 0.875)


@pytest.mark.parametrize("clusters", [[0, 0, 0, 0], [0, 0, 1, 1]])
def test_fewer_than_three_clusters_have_no_interval(clusters: list[int]) -> None:
    assert all(map(math.isnan, bootstrap_mean([1.0, 2.0, 3.0, 4.0], clusters=clusters, seed=0)))
    assert all(map(math.isnan, bootstrap_mean([], seed=0)))


def test_equal_values_have_no_width() -> None:
    assert bootstrap_mean([0.5] * 6, clusters=[0, 0, 1, 2, 2, 3], seed=0) == (0.5, 0.5)


def test_the_seed_alone_decides() -> None:
    rng = np.random.default_rng(0)
    values, clusters = rng.random(40), np.repeat(np.arange(10), 4)
    found = bootstrap_mean(values, clusters=clusters, seed=1)
    rng.random(3)
    assert bootstrap_mean(values, clusters=clusters, seed=1) == found
    assert bootstrap_mean(values, clusters=clusters, seed=2) != found
    order = rng.permutation(40)
    assert bootstrap_mean(values[order], clusters=clusters[order], seed=1) == pytest.approx(found, rel=1e-12)


def test_values_without_an_interval_are_refused() -> None:
    with pytest.raises(LeakpipeError, match=r"values \(3,\) and clusters \(2,\) must be two lists of one length"):
        bootstrap_mean([1.0, 2.0, 3.0], clusters=[0, 1], seed=0)
    for value in (math.nan, math.inf):
        with pytest.raises(LeakpipeError, match="only where all its values are finite"):
            bootstrap_mean([1.0, 2.0, value], seed=0)


def test_attacks_are_compared_with_intervals_over_draws() -> None:
    """Attack `a` in four draws of two images, `b` in two draws, which are too few."""
    rng = np.random.default_rng(0)
    rows = [
        {"attack": attack, "client": "B2", "round": 12, "seed": seed, "ssim": seed / 10 + 0.01 * rng.random()}
        for attack, seeds in (("b", (1, 2)), ("a", (1, 2, 4, 8)))
        for seed in seeds
        for _ in range(2)
    ]
    shared = {"ssim_prior": 0.2, "psnr": 20.0, "label_accuracy": 1.0, "iterations": 5, "seconds": 1.5}
    leakage = pd.DataFrame(rows).assign(**shared)
    leakage["ssim_affine"] = leakage["ssim"] + 0.1
    table = compare_attacks(leakage)
    assert list(table.columns) == COMPARISON_COLUMNS
    assert table["attack"].tolist() == ["b", "a"]
    few, enough = table.to_dict("records")
    assert math.isnan(few["ssim_low"])
    assert math.isnan(few["ssim_high"])
    draws = leakage[leakage["attack"] == "a"].groupby("seed")["ssim"].mean()
    assert (enough["ssim_low"], enough["ssim_high"]) == pytest.approx((draws.min(), draws.max()))
    assert enough["ssim_affine"] == pytest.approx(enough["ssim"] + 0.1)
    pd.testing.assert_frame_equal(compare_attacks(leakage), table)
