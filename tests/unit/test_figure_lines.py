"""Figures of lines: what is drawn is what the tables say, with intervals over draws where there are enough."""

import numpy as np
import pandas as pd
import pytest

from leakpipe.errors import LeakpipeError
from leakpipe.figures.published import ACCURACY_BY_NOISE, RDLV_BY_NOISE
from leakpipe.tables.statistics import bootstrap_mean
from tests.unit.figure_tables import (
    CLIENTS,
    SIGMA0,
    accuracy_table,
    assert_dots_inside,
    bars,
    draw,
    leakage_table,
    line,
    strongest,
)


def interval(rows: pd.DataFrame, column: str) -> tuple[float, float]:
    return bootstrap_mean(rows[column], clusters=rows.seed, seed=1)


def test_rounds_draws_the_means_of_the_strongest_attack_on_each_client() -> None:
    table = leakage_table()
    table.loc[(table.attack == "other") & (table["round"] == 7), "ssim"] += 1
    shown = strongest(table[table.defense == "none"], "client", "round")
    assert {"main", "other"} <= set(shown.attack), "the example has both"
    upper, lower = draw("rounds", leakage=table).figure.axes
    for axes, column in ((upper, "rdlv"), (lower, "gain")):
        for client in ("one", "eight"):
            rows = shown[shown.client == client]
            means = [rows[rows["round"] == captured][column].to_numpy().mean() for captured in (2, 7)]
            drawn = line(axes, client)
            np.testing.assert_allclose(np.asarray(drawn.get_ydata(), float), means)
            np.testing.assert_allclose(np.asarray(drawn.get_xdata(), float), [2, 7], atol=0.2)
        assert_dots_inside(axes)
    assert list(lower.get_xticks()) == [2, 7]


def test_one_round_looks_like_one() -> None:
    """Dots of clients stand apart by less than a twentieth of the distance to the next round."""
    axes = draw("rounds").figure.axes[0]
    places = np.concatenate([np.asarray(one.get_xdata(), float) for one in axes.lines if one.get_alpha()])
    assert all(min(abs(place - 2), abs(place - 7)) < 5 / 20 for place in places)


def test_rounds_draws_every_image_and_leaves_out_undefined_values() -> None:
    table = leakage_table()
    table.loc[(table.defense == "none") & (table.client == "eight") & (table.image == 20), "rdlv"] = np.nan
    drawn = draw("rounds", leakage=table)
    axes = drawn.figure.axes[0]
    shown = np.sort(np.concatenate([np.asarray(d.get_ydata(), float) for d in axes.lines if d.get_alpha()]))
    expected = np.sort(strongest(table[table.defense == "none"], "client", "round").rdlv.dropna().to_numpy())
    np.testing.assert_allclose(shown, expected)
    assert np.isfinite(np.asarray(line(axes, "eight").get_ydata(), float)).all()
    assert "eight: 2 images, 2 seeds" in drawn.caption


def test_intervals_are_over_draws_and_only_where_there_are_three() -> None:
    assert bars(draw("rounds").figure.axes[0]) == []
    table = leakage_table(draws=5)
    table["rdlv"] += table["seed"]  # images of one draw resemble each other
    drawn = draw("rounds", leakage=table)
    rows = table[(table.defense == "none") & (table.client == "eight") & (table["round"] == 7)]
    low, high = interval(rows, "rdlv")
    found = [bar for bar in bars(drawn.figure.axes[0]) if bar[1:] == pytest.approx((low, high), rel=0.03)]
    assert len(found) == 1
    assert found[0][0] == pytest.approx(7, abs=1)
    naive_low, naive_high = bootstrap_mean(rows.rdlv, seed=1)
    assert naive_high - naive_low < 0.8 * (high - low), "images of one draw must not count as draws"
    assert "95 % interval" in drawn.caption


def test_noise_draws_the_means_of_leakage_and_of_the_last_rounds_accuracy() -> None:
    table, accuracy = leakage_table(), accuracy_table()
    drawn = draw("noise", leakage=table, accuracy=accuracy)
    upper, lower = drawn.figure.axes
    for client, label in (("one", "one: 1 image"), ("eight", "eight: 3 images, batch 2")):
        rows = strongest(table[table.client == client], "defense", "round")
        means = [rows[rows.defense == name].rdlv.to_numpy().mean() for name in SIGMA0]
        np.testing.assert_allclose(np.asarray(line(upper, label).get_ydata(), float), means)
    np.testing.assert_allclose(np.asarray(line(lower, "test accuracy").get_ydata(), float), [0.925, 0.875, 0.725])
    assert [text.get_text().split("\n")[0] for text in lower.get_xticklabels()] == ["0", "0.5", "20"]
    naive = line(upper, "one, defence not known")
    assert naive.get_linestyle() == "--"
    rows = table[(table.client == "one") & (table.attack == "other")]
    np.testing.assert_allclose(np.asarray(naive.get_ydata(), float), [rows.rdlv.mean()])
    assert_dots_inside(upper)
    assert_dots_inside(lower)
    assert "one: 2 images, 2 seeds, 2 rounds" in drawn.caption
    assert "after round 7" in drawn.caption
    assert "published by Hatamizadeh" in drawn.caption


def test_published_values_stand_at_their_noise_and_only_for_clients_of_that_name() -> None:
    named = {"site-9": CLIENTS["one"], "eight": CLIENTS["eight"]}
    table = leakage_table().replace({"client": {"one": "site-9"}})
    upper, lower = draw("noise", leakage=table, clients=named).figure.axes
    (published,) = [drawn for drawn in upper.lines if drawn.get_linestyle() == ":" and len(drawn.get_xdata())]
    np.testing.assert_allclose(published.get_ydata(), [RDLV_BY_NOISE["site-9"][0], RDLV_BY_NOISE["site-9"][20]])
    np.testing.assert_allclose(published.get_xdata(), [0, 2], atol=0.2)  # σ0 = 0 and 20; the paper has no 0.5
    (published,) = [drawn for drawn in lower.lines if drawn.get_linestyle() == ":"]
    np.testing.assert_allclose(published.get_ydata(), [ACCURACY_BY_NOISE[0], ACCURACY_BY_NOISE[20]])


def test_published_rounds_are_drawn_where_they_were_captured() -> None:
    table = leakage_table().replace({"client": {"one": "site-9"}, "round": {7: 40}})
    named = {"site-9": CLIENTS["one"], "eight": CLIENTS["eight"]}
    drawn = draw("rounds", leakage=table, clients=named)
    (published,) = [one for one in drawn.figure.axes[0].lines if one.get_linestyle() == ":"]
    np.testing.assert_allclose(published.get_ydata(), [0.5])
    np.testing.assert_allclose(published.get_xdata(), [40], atol=4)
    assert "published" in drawn.caption
    assert "published" not in draw("rounds").caption


def test_attacks_are_drawn_at_their_means() -> None:
    """A panel per client and round; the large marker is the mean over draws of the means over images."""
    table = leakage_table()
    table.loc[table.seed == 1, "seconds"] = 4.0
    figure = draw("attacks", leakage=table).figure
    panels = [axes for axes in figure.axes if axes.lines]
    assert [axes.get_title(loc="left") for axes in panels[:2]] == ["one:\n1 image", "eight:\n3 images, batch 2"]
    rows = table[(table.defense == "none") & (table.client == "eight") & (table["round"] == 7)]
    assert rows.attack.unique().tolist() == ["main"]
    (faint, large, prior) = panels[3].lines
    np.testing.assert_allclose(faint.get_xdata(), [1.5, 4.0])
    np.testing.assert_allclose(faint.get_ydata(), rows.groupby("seed").ssim.mean())
    np.testing.assert_allclose(large.get_xydata(), [[2.75, rows.ssim.mean()]])
    np.testing.assert_allclose(prior.get_ydata(), rows.ssim_prior.mean())
    assert len(panels[0].lines) == 2 * 2 + 1


def test_no_two_of_twelve_attacks_look_alike() -> None:
    table = leakage_table()
    names = [f"attack-{number}" for number in range(12)]
    rows = table[table.attack == "main"]
    many = pd.concat([rows.assign(attack=name) for name in names])
    figure = draw("attacks", leakage=many, attacks=names).figure
    looks = {(mark.get_color(), mark.get_marker()) for mark in figure.legends[0].legend_handles}
    assert len(looks) == len(names) + 1  # the prior's line


def test_what_the_table_does_not_hold_is_an_error_that_names_it() -> None:
    with pytest.raises(LeakpipeError, match="defense 'absent'"):
        draw("rounds", defense="absent")
    with pytest.raises(LeakpipeError, match=r"client 'one'.*not among eight"):
        draw("rounds", clients={"eight": CLIENTS["eight"]})
    with pytest.raises(LeakpipeError, match="no rows for any of the defences absent"):
        draw("noise", sigma0={"absent": 1.0})
