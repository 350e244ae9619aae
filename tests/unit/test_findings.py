"""Headline and tiles are never more reassuring than the tables: recomputed in plain Python over random tables."""

import random
import re
from collections import defaultdict
from fractions import Fraction
from math import comb, nan
from typing import Any

import pandas as pd
import pytest

from leakpipe.report.findings import find
from leakpipe.tables.verdicts import judge_cells
from tests.unit.test_verdicts import random_cell

DEFENSES: dict[str, Any] = {"none": [], "quiet": [{"kind": "gaussian", "sigma0": 1}], "clip": [{"kind": "clip"}]}
CLIENTS = {"alone": {"images": 1, "batch_size": 1}, "many": {"images": 8, "batch_size": 8}}
PARAMS = {"attacks": {"first": {}}, "defenses": DEFENSES, "federation": {"clients": CLIENTS}}
ALARM = ["no leak found", "cannot tell", "leaks"]


def random_tables(seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two clients under one to three defences; a leak may be in any one of the cells."""
    generator = random.Random(seed)
    rows, looked_up = [], []
    for defense in list(DEFENSES)[: generator.randint(1, 3)]:
        for client in CLIENTS:
            cell, found = random_cell(generator)
            rows += [{**row, "client": client, "defense": defense} for row in cell]
            looked_up.append(found.assign(client=client, defense=defense))
    return pd.DataFrame(rows), pd.concat(looked_up)


def least_alarm(rows: list[dict[str, Any]], hits: int, count: int) -> int:
    """The most reassuring word (its place in `ALARM`) that the rows of a client under a defence allow."""
    by_chance = sum(
        Fraction(comb(count, k)) * Fraction(1, 81) ** k * Fraction(80, 81) ** (count - k)
        for k in range(hits, count + 1)
    )
    if (hits and by_chance <= 0.01) or any(row["ssim"] - row["ssim_prior"] > 0.05 for row in rows):
        return 2
    shares: dict[tuple[int, int], float] = defaultdict(float)
    for row in rows:
        place = row["round"], row["seed"]
        shares[place] = max(shares[place], row["explained"])
    return 1 if min(shares.values()) < 0.5 or len({row["seed"] for row in rows}) < 3 else 0


@pytest.mark.parametrize("seed", range(200))
def test_headline_and_tiles_are_never_more_reassuring_than_the_tables(seed: int) -> None:
    leakage, looked_up = random_tables(seed)
    costs = pd.DataFrame([{"defense": name, "accuracy_lost": nan} for name in DEFENSES])
    found = find(judge_cells(leakage, looked_up), leakage, costs, PARAMS)
    assert len(found.tiles) == leakage["defense"].nunique()
    for tile in found.tiles:
        allowed, best, means, recognised = 0, {}, defaultdict(list), 0.0
        for client in CLIENTS:
            rows: Any = leakage.query("client == @client and defense == @tile.defense").to_dict("records")
            hits = looked_up.query("client == @client and defense == @tile.defense")["top1"]
            allowed = max(allowed, least_alarm(rows, int(hits.sum()), len(hits)))
            recognised = max(recognised, hits.sum() / len(hits))
            for row in rows:
                gain, image = row["ssim"] - row["ssim_prior"], (client, row["seed"], row["image"])
                best[image] = max(gain, best.get(image, -2))
                means[client, row["attack"], row["round"]].append(gain)
        assert ALARM.index(tile.word) >= allowed
        assert (tile.leaked, tile.images) == (sum(gain > 0.05 for gain in best.values()), len(best))
        assert tile.most.most == pytest.approx(max(best.values()))
        assert tile.strongest.gain == pytest.approx(max(sum(each) / len(each) for each in means.values()))
        assert tile.recognised is not None
        assert tile.recognised.identified / tile.recognised.looked_up == pytest.approx(recognised)
    words = [tile.word for tile in found.tiles]
    assert found.word == max(words, key=ALARM.index)
    said = found.sentence
    opening = next(tile for tile in found.tiles if tile.word == found.word)
    if opening.leaked:
        assert said.startswith(f"{opening.leaked} of {opening.images} private image")
    for tile in found.tiles:
        if tile != opening:  # each other defence is named, with its own word
            place = "ithout noise" if tile.defense == "none" else tile.text
            assert re.search(rf"{re.escape(place)}[^;:]*: {tile.word}[;.]", found.sentence)
    for word in ("no leak found", "cannot tell"):
        assert (word in said) <= (word in words)
