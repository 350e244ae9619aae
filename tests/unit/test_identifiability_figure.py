"""The figure of recognition beside similarity: what is drawn is what the tables say, of the attack that gets most."""

import numpy as np
import pandas as pd
import pytest

from leakpipe.defenses.naming import name_defenses
from leakpipe.errors import LeakpipeError
from leakpipe.tables.statistics import bootstrap_mean
from tests.unit.figure_tables import DEFENSES, draw, identifiability_table, leakage_table, strongest

NAMES = name_defenses(DEFENSES)
EMBEDDERS = ["pixels", "global-model"]


def recognised(draws: int = 4) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables; each embedder has hits of its own."""
    leakage = leakage_table(draws=draws)
    base = identifiability_table().iloc[:0]
    rng = np.random.default_rng(3)
    parts = []
    for embedder in EMBEDDERS:
        hits = (rng.random(len(leakage)) < 0.5).astype(float)
        fixed = {"rank": 2.0, "rank_prior": 9.0, "candidates": 17, "chance": 1 / 17, "top1_prior": 0.0}
        chance = leakage.client.map({"one": 1 / 17, "eight": 3 / 17})
        parts.append(leakage.assign(embedder=embedder, top1=hits, chance_client=chance, **fixed)[base.columns])
    return leakage, pd.concat(parts, ignore_index=True)


def test_every_defence_has_its_most_recognising_attack_beside_its_similarity() -> None:
    leakage, found = recognised()
    drawn = draw("identifiability", leakage=leakage, identifiability=found, embedders=EMBEDDERS)
    panels = drawn.figure.axes
    assert [text.get_text() for text in panels[0].get_yticklabels()] == list(NAMES.values())
    for marker, client, shift in (("o", "one", -0.11), ("s", "eight", 0.11)):
        for place, defense in enumerate(NAMES):
            rows = strongest(leakage[(leakage.defense == defense) & (leakage.client == client)], "defense")
            assert point(panels[0], marker, place + shift) == pytest.approx(rows.gain.mean())
            for axes, embedder in zip(panels[1:], EMBEDDERS, strict=True):
                there = found[(found.defense == defense) & (found.client == client) & (found.embedder == embedder)]
                shares = there.groupby(["attack", "round"]).top1.mean()
                assert point(axes, marker, place + shift) == pytest.approx(shares.max())
                assert point(axes, "|", place + shift) == pytest.approx({"one": 1 / 17, "eight": 3 / 17}[client])
    assert "nearest of the 17 training images of all clients" in drawn.caption
    assert "one: 4 reconstructions, 4 draws a point; eight: 12 reconstructions, 4 draws a point" in drawn.caption


def point(axes: object, marker: str, height: float) -> float:
    lines = [one for one in axes.lines if one.get_marker() == marker]  # type: ignore[attr-defined]
    (found,) = [one.get_xdata()[0] for one in lines if one.get_ydata()[0] == pytest.approx(height)]
    return float(found)


def test_intervals_are_over_draws_from_three_on() -> None:
    leakage, found = recognised()
    axes = draw("identifiability", leakage=leakage, identifiability=found, embedders=EMBEDDERS).figure.axes[0]
    segments = [segment for drawn in axes.collections for segment in drawn.get_segments()]
    rows = strongest(leakage[(leakage.defense == "none") & (leakage.client == "eight")], "defense")
    low, high = bootstrap_mean(rows.gain, clusters=rows.seed, seed=1)
    ends = [segment[:, 0] for segment in segments if segment[0, 1] == pytest.approx(0.11)]
    np.testing.assert_allclose(ends, [(low, high)], atol=0.03)
    few, found = recognised(draws=2)
    axes = draw("identifiability", leakage=few, identifiability=found, embedders=EMBEDDERS).figure.axes[0]
    assert not any(np.isfinite(segment).any() for drawn in axes.collections for segment in drawn.get_segments())


def test_what_the_table_does_not_hold_is_named() -> None:
    with pytest.raises(LeakpipeError, match="embedder 'imagenet-resnet50'"):
        draw("identifiability", embedders=["imagenet-resnet50"])
