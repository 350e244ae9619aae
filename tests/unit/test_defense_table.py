"""Leakage under defences, their cost and guarantee: naive recomputation, marked failures, and figures."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from leakpipe.accounting.gaussian import gaussian_epsilon, success_bound
from leakpipe.accounting.table import tabulate_guarantees
from leakpipe.errors import LeakpipeError
from leakpipe.params.federation import FederationParams
from leakpipe.tables.defenses import DEFENSE_COLUMNS, compare_defenses, find_front, is_destroyed, least_loss_seen
from leakpipe.tables.robustness import BOUND_COLUMNS, bound_curve, class_chance, compare_with_bounds
from leakpipe.tables.statistics import bootstrap_mean
from tests.unit.figure_tables import CLIENTS, draw

NAMES = ["none", "hiding", "private", "broken"]
RDLV = {"none": 2.0, "hiding": -0.5, "private": 0.3, "broken": -0.9}
ACCURACY = {"none": 0.95, "hiding": 0.8, "private": 0.9, "broken": 0.5}
VERDICTS = {"none": "leaks", "hiding": "no leak found", "private": "leaks", "broken": "cannot tell"}
DP = {"kind": "dp-gaussian", "clip_norm": 1.0, "noise_multiplier": 2.0}
STEPS: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "hiding": [{"kind": "gaussian", "sigma0": 5}],
    "private": [DP],
    "broken": [{**DP, "noise_multiplier": 9.0}],
}
FEDERATION = FederationParams.model_validate(
    {
        "rounds": 7,
        "captured_rounds": [2, 7],
        "learning_rate": 0.1,
        "local_epochs": 1,
        "batch_norm_momentum": 0.1,
        "clients": CLIENTS,
    }
)
PRIVACY = tabulate_guarantees(STEPS, FEDERATION, delta=1e-5)


def leakage(*, draws: int = 4, told: float = 0.4) -> pd.DataFrame:
    """`main` and the weaker `other` everywhere; `main-adaptive` gets `told` more, but not without a defence."""
    rng = np.random.default_rng(0)
    rows = []
    for defense, level in RDLV.items():
        for seed in range(draws):
            for number in (2, 7):
                for attack, shift in (("main", 0), ("other", -0.2), ("main-adaptive", told)):
                    if (attack, defense) != ("main-adaptive", "none"):
                        value = level + shift + 0.01 * rng.standard_normal()
                        rows.append((defense, seed, number, "one", attack, value))
                rows.append((defense, seed, number, "eight", "main", 9.0))
    return pd.DataFrame(rows, columns=["defense", "seed", "round", "client", "attack", "rdlv"])


def accuracy(*, draws: int = 4) -> pd.DataFrame:
    rows = [
        (defense, seed, number, level + 0.01 * seed * (number == 7) - 0.3 * (number == 2))
        for defense, level in ACCURACY.items()
        for seed in range(draws)
        for number in (2, 7)
    ]
    return pd.DataFrame(rows, columns=["defense", "seed", "round", "test_accuracy"])


def compare(rows: pd.DataFrame | None = None, *, draws: int = 4, **changes: Any) -> pd.DataFrame:
    settings = {
        "client": "one",
        "verdicts": VERDICTS,
        "defenses": NAMES,
        "adaptive": ["main-adaptive"],
        "chance": 0.5,
        "test_images": 50,
    }
    table = leakage(draws=draws) if rows is None else rows
    return compare_defenses(table, accuracy(draws=draws), PRIVACY, **{**settings, **changes})


def test_a_row_holds_the_best_attacks_the_accuracy_and_the_guarantee() -> None:
    rows, table = leakage(), compare()
    assert list(table.columns) == DEFENSE_COLUMNS
    found = table.set_index("defense").loc["private"]
    for whose, attack in (("naive", "main"), ("adaptive", "main-adaptive")):
        chosen = rows[(rows.defense == "private") & (rows.client == "one") & (rows.attack == attack)]
        low, high = bootstrap_mean(chosen.rdlv, clusters=chosen.seed, seed=1)
        assert found[f"{whose}_attack"] == attack
        assert found[f"{whose}_rdlv"] == pytest.approx(chosen.rdlv.mean())
        assert found[f"{whose}_rdlv_low"] == pytest.approx(low, abs=2e-3)
        assert found[f"{whose}_rdlv_high"] == pytest.approx(high, abs=2e-3)
    assert found["rdlv"] == found["adaptive_rdlv"]
    assert found["accuracy"] == pytest.approx(0.9 + 0.015)
    assert (found["accuracy_lost"], found["accuracy_lost_low"]) == (pytest.approx(0.05), pytest.approx(0.05))
    assert found["epsilon"] == pytest.approx(gaussian_epsilon(math.sqrt(7), 1e-5))
    assert (found["unit"], found["kind"], found["draws"]) == ("client", "dp-gaussian", 4)


def test_those_without_a_leak_come_first_then_the_most_accurate() -> None:
    table = compare()
    assert list(table["defense"]) == ["hiding", "broken", "none", "private"]
    assert list(table["verdict"]) == ["no leak found", "cannot tell", "leaks", "leaks"]
    assert list(table["destroyed"]) == [False, True, False, False]
    assert math.isnan(table.set_index("defense").loc["none", "adaptive_rdlv"])
    assert table.set_index("defense")["epsilon"].isna().to_dict() == {
        "hiding": True,
        "broken": False,
        "none": True,
        "private": False,
    }


def test_the_attack_that_gets_most_counts_whatever_it_knows() -> None:
    table = compare(leakage(told=0.7)).set_index("defense")
    assert table.loc["hiding", "naive_rdlv_high"] < 0 < table.loc["hiding", "adaptive_rdlv_low"]
    assert table.loc["hiding", "rdlv"] == table.loc["hiding", "adaptive_rdlv"]
    assert compare(adaptive=[]).set_index("defense").loc["hiding", "naive_attack"] == "main-adaptive"


def test_two_draws_have_no_interval() -> None:
    table = compare(draws=2).set_index("defense")
    assert math.isnan(table.loc["hiding", "naive_rdlv_low"])
    assert math.isnan(table.loc["hiding", "accuracy_low"])


def test_the_front_is_of_accuracy_and_the_larger_leak() -> None:
    table = compare()
    points = list(zip(table.accuracy, table.rdlv, strict=True))
    assert list(table.index[table.front]) == find_front(points)
    assert set(table.defense[table.front]) == {"none", "private", "hiding", "broken"}


def test_a_client_that_nothing_was_run_on_is_named() -> None:
    with pytest.raises(LeakpipeError, match="no RDLV of client 'unattacked' under none, hiding"):
        compare(client="unattacked")
    without = leakage()[lambda rows: rows.defense != "hiding"]
    assert "hiding" not in set(compare(without).defense)


@pytest.mark.parametrize(("images", "expected"), [(25, True), (400, False)])
def test_destroyed_is_within_two_standard_errors_of_chance(images: int, expected: bool) -> None:
    assert is_destroyed(0.6, chance=0.5, images=images) == expected
    hits = np.random.default_rng(0).binomial(images, 0.5, size=20_000) / images
    flagged = np.mean([is_destroyed(hit, chance=0.5, images=images) for hit in hits])
    assert 0.95 < flagged < 0.995, "guessing is nearly always called so"


def test_the_front_figure_has_a_point_per_defence_and_says_what_is_at_chance() -> None:
    table = compare()
    drawing = draw("front", defense_table=table, defenses={name: name.upper() for name in NAMES})
    (axes,) = drawing.figure.axes
    points = {tuple(line.get_xydata()[0]) for line in axes.lines if line.get_marker() in ("o", "D")}
    for row in table.to_dict("records"):
        for whose in ("naive", "adaptive"):
            if not math.isnan(row[f"{whose}_rdlv"]):
                assert (row["accuracy"], row[f"{whose}_rdlv"]) in points
    texts = {text.get_text() for text in axes.texts}
    assert "HIDING" in texts
    assert any(text.startswith("PRIVATE, ε = ") for text in texts)
    assert "Accuracy at chance: BROKEN." in drawing.caption
    assert f"HIDING, accuracy {table.accuracy[0]:.2f}: no leak found" in drawing.caption
    assert "4 draws" in drawing.caption
    leaky = draw("front", defense_table=table[table.verdict == "leaks"], defenses=dict(zip(NAMES, NAMES, strict=True)))
    assert "It leaks under every defence" in leaky.caption


def identifiability(rate: float, *, draws: int = 5) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    rows = [
        (defense, seed, number, "one", attack, embedder, float(rng.uniform() < rate + bonus))
        for defense in NAMES
        for seed in range(draws)
        for number in (2, 7)
        for attack, bonus in (("main", 0.3), ("other", 0.0))
        for embedder in ("pixels", "eyes")
    ]
    return pd.DataFrame(rows, columns=["defense", "seed", "round", "client", "attack", "embedder", "top1"])


def test_bounds_are_those_of_the_releases_up_to_the_attacked_round() -> None:
    rows = identifiability(0.2)
    table = compare_with_bounds(
        rows, PRIVACY, client="one", embedder="pixels", prior_success=0.1, attacks=["main", "other"]
    )
    assert list(table.columns) == BOUND_COLUMNS
    assert list(zip(table.defense, table["round"], strict=True)) == [
        (name, number) for name in ("private", "broken") for number in (2, 7)
    ]
    for row in table.to_dict("records"):
        noise = {"private": 2.0, "broken": 9.0}[row["defense"]]
        assert row["bound"] == pytest.approx(success_bound(0.1, math.sqrt(row["round"]) / noise))
        assert row["epsilon"] == pytest.approx(gaussian_epsilon(2 * math.sqrt(row["round"]) / noise, 1e-5))
        seen = rows[(rows.defense == row["defense"]) & (rows["round"] == row["round"]) & (rows.embedder == "pixels")]
        assert row["identified"] == seen.groupby("attack").top1.mean().max()
    curve = bound_curve(list(table.epsilon), delta=1e-5, prior_success=0.1)
    np.testing.assert_allclose(curve, table.bound, rtol=1e-6)


def test_chance_counts_images_of_the_right_class() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 0])
    clients = {"one": [0], "two": [1, 3, 4], "three": [5, 6]}
    assert class_chance(labels, clients, "one") == 1 / 2  # two images of class 0 among the six held
    assert class_chance(labels, clients, "two") == 1 / 2  # one of class 0 of two, two of class 1 of four
    assert class_chance(labels, clients, "three") == 2 / 4


def test_the_bound_figure_stands_over_its_points() -> None:
    table = compare_with_bounds(
        identifiability(0.0), PRIVACY, client="one", embedder="pixels", prior_success=0.1, attacks=["main"]
    )
    split = SimpleNamespace(clients={"one": [0], "eight": list(range(1, 10))})
    reads: dict[str, Any] = {"identifiability": identifiability(0.0), "privacy": PRIVACY, "splits": {0: split}}
    reads["dataset"] = SimpleNamespace(labels=np.zeros(10, int))
    settings = {"attacks": ["main"], "defenses": dict(zip(NAMES, NAMES, strict=True))}
    drawing = draw("bound", **reads, **settings)
    (axes,) = drawing.figure.axes
    (curve,) = [line for line in axes.lines if len(line.get_xdata()) > 50]
    assert np.all(np.diff(curve.get_ydata()) > 0)
    points = [tuple(point) for line in axes.lines if line.get_linestyle() == "None" for point in line.get_xydata()]
    assert sorted(points) == sorted(zip(table.epsilon, table.identified, strict=True))
    assert "right in 10.0 % of cases" in drawing.caption
    with pytest.raises(LeakpipeError, match="needs a defence with a bound"):
        draw("bound", **{**reads, "privacy": PRIVACY[:0]}, **settings)


@pytest.mark.parametrize("images", [50, 300])
def test_the_least_loss_that_can_be_seen_is_that_of_a_sign_test(images: int) -> None:
    lost = round(least_loss_seen(images) * images)
    assert binomtest(lost, lost).pvalue < 0.05 <= binomtest(lost - 1, lost - 1).pvalue
