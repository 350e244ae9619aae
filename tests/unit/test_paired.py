"""Paired comparisons: against scipy, closed forms and slow versions, and how often they err."""

import math
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from leakpipe.errors import LeakpipeError
from leakpipe.tables.comparisons import PAIR_COLUMNS, compare_pairs
from leakpipe.tables.statistics import EXACT_DRAWS, bootstrap_mean, compare_draws, draw_means, holm, sign_flip_p

REPETITIONS = 2000


def correlated(repetitions: int, draws: int, *, difference: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Two conditions that share most of what a draw is: their difference varies a fifth as much as they do."""
    rng = np.random.default_rng(draws)
    shared = rng.standard_normal((repetitions, draws))
    first, second = 0.1 * rng.standard_normal((2, repetitions, draws))
    return shared + first + difference, shared + second


@pytest.mark.parametrize("draws", [8, 20])
def test_intervals_of_differences_cover_as_often_as_they_say(draws: int) -> None:
    first, second = correlated(REPETITIONS, draws, difference=0.3)
    intervals = [bootstrap_mean(row, resamples=1000, seed=i) for i, row in enumerate(first - second)]
    assert 0.93 <= np.mean([low <= 0.3 <= high for low, high in intervals]) <= 0.97


def test_the_comparison_is_the_interval_and_the_test_of_the_differences() -> None:
    first, second = (pd.Series(row[0], index=range(8)) for row in correlated(1, 8, difference=0.3))
    found = compare_draws(first, second.sample(frac=1, random_state=0), seed=3)
    differences = (first - second).to_numpy()
    assert found.difference == pytest.approx(differences.mean())
    assert (found.low, found.high) == bootstrap_mean(differences, seed=3)
    assert found.p == sign_flip_p(differences, seed=3)
    assert found.draws == 8
    unpaired = bootstrap_mean(first, seed=0)
    assert found.high - found.low < 0.5 * (unpaired[1] - unpaired[0])


def test_only_common_draws_are_compared() -> None:
    first, second = pd.Series({1: 0.5, 2: 0.6, 3: 0.9, 4: 0.7}), pd.Series({4: 0.4, 2: 0.4, 3: 0.4, 9: 7.0})
    found = compare_draws(first, second, seed=0)
    assert (found.draws, found.difference) == (3, pytest.approx((0.2 + 0.5 + 0.3) / 3))
    few = compare_draws(first[:2], second, seed=0)
    assert few.draws == 1
    assert all(map(math.isnan, (few.low, few.high, few.p)))
    with pytest.raises(LeakpipeError, match="without a common draw"):
        compare_draws(first[:1], second, seed=0)


@pytest.mark.parametrize("draws", [5, 8])
def test_the_exact_test_is_scipys(draws: int) -> None:
    for first, second in zip(*correlated(20, draws, difference=0.1), strict=True):
        theirs = stats.permutation_test(
            (first, second), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", vectorized=True
        )
        assert sign_flip_p(first - second, seed=0) == pytest.approx(theirs.pvalue)


def test_on_ranks_it_is_wilcoxons() -> None:
    """Signed ranks instead of differences: the same sign changes, whose distribution scipy knows exactly."""
    for values in np.random.default_rng(0).normal(0.4, 1, (20, 10)):
        ranks = np.sign(values) * stats.rankdata(np.abs(values))
        assert sign_flip_p(ranks, seed=0) == pytest.approx(stats.wilcoxon(values, method="exact").pvalue)


def test_sampled_signs_agree_with_all_of_them() -> None:
    values = np.random.default_rng(0).normal(0.3, 1, EXACT_DRAWS + 1)
    sums = np.abs([np.dot(signs, values) for signs in product((1, -1), repeat=len(values))])
    assert sign_flip_p(values, seed=0) == pytest.approx(np.mean(sums >= abs(values.sum()) - 1e-9), abs=0.015)


@pytest.mark.parametrize("draws", [3, 5, 8])
def test_the_smallest_p_is_that_of_equal_signs(draws: int) -> None:
    assert sign_flip_p(np.linspace(0.1, 0.7, draws), seed=0) == 2 / 2**draws
    assert sign_flip_p(np.zeros(draws), seed=0) == 1.0


def test_sums_that_only_rounding_tells_apart_are_ties() -> None:
    """Whole numbers add up exactly; a tenth of them does not, and must give the same p."""
    for whole in np.random.default_rng(0).integers(-9, 10, (50, 8)):
        assert sign_flip_p(0.1 * whole, seed=0) == sign_flip_p(whole, seed=0)


def test_many_draws_never_have_a_p_of_zero() -> None:
    assert sign_flip_p(np.ones(40), seed=0, resamples=999) == 1 / 1000


@pytest.mark.parametrize(("draws", "resamples"), [(8, 0), (20, 999)])
def test_equal_conditions_are_rarely_told_apart(draws: int, resamples: int) -> None:
    first, second = correlated(REPETITIONS, draws)
    p = np.array([sign_flip_p(row, seed=i, resamples=resamples) for i, row in enumerate(first - second)])
    assert 0.03 <= np.mean(p <= 0.05) <= 0.06
    assert np.mean(p <= 0.5) == pytest.approx(0.5, abs=0.03)


def naive_holm(p_values: list[float]) -> list[float]:
    """Smallest level at which the step-down procedure rejects each hypothesis, by trying levels."""
    levels = sorted({min(1.0, p * factor) for p in p_values for factor in range(1, len(p_values) + 1)} | {1.0})

    def rejected(level: float) -> set[int]:
        found: set[int] = set()
        for position, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
            if p_values[index] * (len(p_values) - position) > level:
                break
            found.add(index)
        return found

    return [next((level for level in levels if i in rejected(level)), 1.0) for i in range(len(p_values))]


def test_holms_correction_is_the_step_down_procedure() -> None:
    rng = np.random.default_rng(0)
    for count in (1, 2, 3, 7):
        p_values = (rng.random(count) ** 3).tolist()
        assert holm(p_values) == pytest.approx(naive_holm(p_values))
    assert holm([0.01, math.nan, 0.04, 0.03]).tolist() == pytest.approx([0.03, math.nan, 0.06, 0.06], nan_ok=True)
    assert holm([]).size == 0


def test_holm_keeps_the_chance_of_any_error() -> None:
    families = np.random.default_rng(1).random((REPETITIONS, 10))
    assert np.mean([(holm(family) <= 0.05).any() for family in families]) == pytest.approx(0.05, abs=0.012)


def leakage_table() -> pd.DataFrame:
    """Attack `b` gets 0.1 less than `a`, and noise takes 0.3; `many` starts from a better prior."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for seed, defense, client, attack in product(range(6), ("none", "noise"), ("one", "many"), ("a", "b")):
        if (attack, client, defense) == ("b", "many", "noise"):
            continue
        for image in range(2 if client == "many" else 1):
            ssim = 0.9 - 0.1 * (attack == "b") - 0.3 * (defense == "noise") + 0.01 * rng.random()
            prior = 0.5 if client == "many" else 0.2
            row = {"seed": seed, "defense": defense, "client": client, "attack": attack, "image": image}
            rows.append(row | {"round": 1, "ssim": ssim, "ssim_prior": prior})
    return pd.DataFrame(rows)


ORDERS = {"attack": ["a", "b"], "client": ["absent", "one", "many"], "defense": ["none", "noise"]}


def test_the_table_compares_the_first_of_a_kind_with_the_others() -> None:
    table = compare_pairs(leakage_table(), ORDERS)
    assert list(table.columns) == PAIR_COLUMNS
    assert table["compared"].tolist() == ["attack"] * 3 + ["client"] * 3 + ["defense"] * 3
    assert set(zip(table["compared"], table["against"], table["measure"], strict=True)) == {
        ("attack", "b", "ssim"),
        ("client", "many", "ssim_gain"),
        ("defense", "noise", "ssim"),
    }
    wanted = {"attack": 0.1, "client": 0.3, "defense": 0.3}
    for row in table.to_dict("records"):
        assert row["difference"] == pytest.approx(wanted[row["compared"]], abs=0.02)
        assert row["low"] < row["difference"] < row["high"]
        assert (row["p"], row["draws"]) == (2 / 2**6, 6)
    pd.testing.assert_frame_equal(compare_pairs(leakage_table().sample(frac=1, random_state=0), ORDERS), table)


def test_the_correction_is_over_one_place_only() -> None:
    """Two attacks beside the first: their p-values are corrected together, on each client and defence by itself."""
    both = leakage_table()
    table = compare_pairs(
        pd.concat([both, both.query("attack == 'b'").assign(attack="c")]), ORDERS | {"attack": ["a", "b", "c"]}
    )
    attacks = table[table["compared"] == "attack"]
    assert attacks.groupby(["client", "defense"]).size().tolist() == [2, 2, 2]
    assert attacks["p_holm"].tolist() == pytest.approx([2 * 2 / 2**6] * 6)
    assert table[table["compared"] == "client"]["p_holm"].tolist() == pytest.approx([2 / 2**6] * 4)


def test_draws_are_means_over_images_and_rounds() -> None:
    rows = pd.DataFrame({"seed": [2, 1, 2, 1], "round": [1, 1, 12, 12], "ssim": [0.1, 0.2, 0.3, 0.6]})
    assert draw_means(rows, "ssim").to_dict() == pytest.approx({1: 0.4, 2: 0.2})
