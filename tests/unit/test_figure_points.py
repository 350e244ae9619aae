"""Figures of clients, defences and comparisons: a mean and its interval for each."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from leakpipe.defenses.naming import name_defenses
from leakpipe.errors import LeakpipeError
from leakpipe.figures.clients import describe_training
from leakpipe.figures.effect import is_number
from leakpipe.figures.style import COLORS, MUTED
from leakpipe.tables.defenses import find_front
from leakpipe.tables.statistics import bootstrap_mean
from tests.unit.figure_tables import (
    DEFENSES,
    EFFECT,
    accuracy_table,
    bars,
    defense_table,
    draw,
    leakage_table,
    line,
    strongest,
)


@pytest.mark.parametrize(("images", "batch_size", "epochs"), [(1, 1, 1), (8, 4, 1), (8, 3, 2), (5, 5, 7)])
def test_local_steps_are_the_batches_that_a_client_goes_through(images: int, batch_size: int, epochs: int) -> None:
    steps = sum(len(range(0, images, batch_size)) for _ in range(epochs))
    client: dict[str, Any] = {"images": images, "batch_size": batch_size}
    expected = {"images": images, "batch_size": batch_size, "steps": steps}
    assert describe_training(client, local_epochs=epochs) == expected
    assert describe_training({**client, "local_epochs": epochs}, local_epochs=99) == expected
    assert describe_training({**client, "local_epochs": None}, local_epochs=epochs) == expected


def test_each_client_stands_beside_what_it_holds_and_how_it_trains() -> None:
    table = leakage_table(draws=4)
    drawn = draw("clients", leakage=table, local_epochs=3)
    upper, lower = drawn.figure.axes
    ticks = [text.get_text() for text in lower.get_xticklabels()]
    assert ticks == ["one\n1 image\nbatch 1\n3 steps", "eight\n3 images\nbatch 2\n6 steps"]
    rows = strongest(table[table.defense == "none"], "client", "round")
    rows = rows[rows.client == "eight"]
    for axes, values in ((upper, rows.gain), (lower, rows.rdlv)):
        (mean,) = line(axes, "eight").get_xydata()
        np.testing.assert_allclose(mean, [1, values.mean()], atol=1e-9)
        low, high = bootstrap_mean(values, clusters=rows.seed, seed=1)
        assert any(bar == pytest.approx((1, low, high), rel=0.03) for bar in bars(axes))
    assert "one: 4 images, 4 seeds, 2 rounds; eight: 3 images, 4 seeds, 2 rounds" in drawn.caption
    assert "95 % interval" in drawn.caption


def test_each_attack_stands_in_its_clients_row() -> None:
    """Rows as the parameters list clients; the attack that was not run on one is not in its row."""
    table = leakage_table(draws=4)
    drawn = draw("attacks-by-client", leakage=table)
    first, last = drawn.figure.axes
    assert [text.get_text() for text in first.get_yticklabels()] == ["eight: 3 images, batch 2", "one: 1 image"]
    for axes, number in ((first, 2), (last, 7)):
        rows = table[(table.defense == "none") & (table["round"] == number)]
        means = [
            (each.ssim.mean(), ["eight", "one"].index(name)) for (name, _), each in rows.groupby(["client", "attack"])
        ]
        large = [tuple(one.get_xydata()[0]) for one in axes.lines if one.get_markersize() == 7]
        np.testing.assert_allclose(sorted(large), sorted(means))
        priors = [tuple(one.get_xydata()[0]) for one in axes.lines if one.get_marker() == "|"]
        np.testing.assert_allclose(
            priors,
            [(rows[rows.client == name].ssim_prior.mean(), place) for place, name in enumerate(("eight", "one"))],
        )


def test_a_defence_stands_at_its_accuracy_and_its_worst_leakage() -> None:
    """Of the client, attack and round that gain most; where another attack knows less, hollow what that gets there."""
    table, accuracy = leakage_table(draws=4), accuracy_table(draws=4)
    table = table[~((table.client == "eight") & (table.defense == "none") & (table.seed == 3))]
    names = name_defenses(DEFENSES)
    drawn = draw("tradeoff", leakage=table, accuracy=accuracy)
    (axes,) = drawn.figure.axes
    worst = {name: strongest(table[table.defense == name], "defense") for name in names}
    last = accuracy[accuracy["round"] == 7].groupby("defense").test_accuracy.mean()
    points = [tuple(one.get_xydata()[0]) for one in axes.lines if one.get_marker() == "o"]
    expected = [(last[name], worst[name].gain.mean()) for name in names]
    np.testing.assert_allclose(points, expected, atol=0.02)
    for name, text in names.items():
        rows = worst[name]
        client, attack, number = rows.client.iloc[0], rows.attack.iloc[0], rows["round"].iloc[0]
        assert any(one.get_text().startswith(f"{text} ({client}") for one in axes.texts)
        assert f"{text}: {client}, {attack}, round {number}, {rows.seed.nunique()} seeds" in drawn.caption
    assert len(bars(axes)) == len(names)
    assert "95 % interval" in drawn.caption


def test_a_naive_attack_is_hollow_and_below() -> None:
    table = leakage_table()
    table.loc[(table.client == "one") & (table.attack == "main"), "ssim"] = 0.9
    (axes,) = draw("tradeoff", leakage=table).figure.axes
    hollow = [one.get_ydata()[0] for one in axes.lines if one.get_marker() == "s"]
    there = table[(table.defense == "none") & (table.attack == "other")]
    means = (there.ssim - there.ssim_prior).groupby(there["round"]).mean()
    assert any(hollow == pytest.approx([mean]) for mean in means)


def test_points_of_one_accuracy_do_not_share_a_bar() -> None:
    accuracy = accuracy_table().assign(test_accuracy=0.9)
    (axes,) = draw("tradeoff", leakage=leakage_table(draws=3), accuracy=accuracy).figure.axes
    places = [place for place, _, _ in bars(axes)]
    assert len(set(places)) == len(places) == len(DEFENSES)
    assert np.mean(places) == pytest.approx(0.9)


def test_a_defence_that_destroys_the_model_is_gray_and_said_to() -> None:
    names = name_defenses(DEFENSES)
    drawn = draw("tradeoff")
    (axes,) = drawn.figure.axes
    colors = [one.get_color() for one in axes.lines if one.get_marker() == "o"]
    assert colors == [MUTED if name == "loud" else COLORS[0] for name in names]
    marked = [one.get_text() for one in axes.texts if "accuracy at chance" in one.get_text()]
    assert [text.split(" (")[0] for text in marked] == [names["loud"]]
    assert f"Gray, accuracy at chance: {names['loud']}." in drawn.caption
    assert "at chance" not in draw("tradeoff", defense_table=defense_table().assign(destroyed=False)).caption


def test_the_front_is_what_no_other_point_beats() -> None:
    points = [(0.9, 0.5), (0.9, 0.3), (0.5, 0.3), (0.4, -0.1), (0.4, -0.1), (0.95, 0.6)]
    assert find_front(points) == [1, 3, 4, 5]
    drawn = [tuple(pair) for pair in np.random.default_rng(0).uniform(size=(60, 2))]
    front = find_front(drawn)
    for index, (accuracy, leak) in enumerate(drawn):
        beaten = [other for other in drawn if other[0] > accuracy and other[1] < leak]
        assert (index in front) == (not beaten)
    ordered = sorted(drawn[index] for index in front)
    assert all(earlier[1] < later[1] for earlier, later in pairwise(ordered)), "along the front, accuracy costs privacy"


def test_compared_attacks_stand_in_order_with_a_dot_per_draw() -> None:
    table = leakage_table(draws=4)
    comparison = {**EFFECT, "attacks": {"other": "without", "main": "with it"}}
    drawn = draw("effect-thing", leakage=table, comparison=comparison)
    (axes,) = drawn.figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["without", "with it"]
    assert axes.yaxis_inverted()
    for place, attack in enumerate(comparison["attacks"]):
        rows = table[(table.defense == "none") & (table.client == "one") & (table.attack == attack)]
        faint, large, prior = axes.lines[3 * place : 3 * place + 3]
        np.testing.assert_allclose(faint.get_xdata(), rows.groupby("seed").ssim.mean())
        np.testing.assert_allclose(large.get_xydata(), [[rows.ssim.mean(), place]])
        np.testing.assert_allclose(prior.get_xdata(), rows.ssim_prior.mean())
    assert "one: 4 images, 4 seeds" in drawn.caption
    assert "“with it” (main)" in drawn.caption
    assert "95 % interval" in drawn.caption


def test_labels_that_are_numbers_make_a_line_against_iterations() -> None:
    table = leakage_table(draws=4)
    comparison = {**EFFECT, "attacks": {"other": "50", "main": 5}}
    (axes,) = draw("effect-thing", leakage=table, comparison=comparison).figure.axes
    rows = table[(table.defense == "none") & (table.client == "one")]
    means = rows.groupby("iterations").ssim.mean()
    (joined,) = [one for one in axes.lines if one.get_linestyle() == "-"]
    np.testing.assert_allclose(joined.get_xydata(), [(5, means[5]), (50, means[50])])
    assert axes.get_xscale() == "log"
    assert [place for place, _, _ in bars(axes)] == [50, 5]
    assert [is_number(label) for label in (3, "1e3", "3 steps", "")] == [True, True, False, False]


def test_attacks_are_compared_on_the_draws_that_both_had() -> None:
    table = leakage_table(draws=4)
    table = table[~((table.attack == "other") & (table.seed == 3))]
    drawn = draw("effect-thing", leakage=table)
    shared = table[(table.defense == "none") & (table.client == "one") & (table.seed < 3)]
    for place, attack in enumerate(EFFECT["attacks"]):
        means = shared[shared.attack == attack].groupby("seed").ssim.mean()
        np.testing.assert_allclose(drawn.figure.axes[0].lines[3 * place].get_xdata(), means)
    assert "one: 3 images, 3 seeds" in drawn.caption
    apart = table[(table.attack == "other") ^ (table.seed == 3)]
    with pytest.raises(LeakpipeError, match="on client 'one' have no seed in common"):
        draw("effect-thing", leakage=apart)


def test_an_attack_that_was_not_run_on_a_client_is_named() -> None:
    with pytest.raises(LeakpipeError, match="client 'eight', attack 'other'"):
        draw("effect-thing", comparison={**EFFECT, "clients": ["eight"]})
