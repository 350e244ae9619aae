"""Verdicts are never more reassuring than the tables: recomputed row by row, without pandas, over random tables."""

import math
import random
from collections import defaultdict
from fractions import Fraction
from math import comb
from typing import Any

import pandas as pd
import pytest

from leakpipe.tables.verdicts import Verdict, judge_cells
from leakpipe.tables.wording import CANNOT_TELL, LEAKS, NOTHING_FOUND

Rows = list[dict[str, Any]]


def cell_rows(
    gains: dict[tuple[str, int], list[list[float]]], *, explained: dict[tuple[str, int], float] | float = 0.9
) -> Rows:
    """Rows of one client under one defence: for each (attack, round) a list of gains per draw."""
    return [
        {
            "client": "site-1",
            "defense": "none",
            "attack": attack,
            "round": number,
            "seed": seed,
            "image": 100 * seed + image,
            "ssim": 0.3 + gain,
            "ssim_prior": 0.3,
            "explained": explained if isinstance(explained, float) else explained[attack, number],
            "text_accuracy": math.nan,
            "text_accuracy_prior": math.nan,
            "text_chance": math.nan,
        }
        for (attack, number), draws in gains.items()
        for seed, images in enumerate(draws)
        for image, gain in enumerate(images)
    ]


def look_ups(hits: int, count: int, *, chance: float = 1 / 81) -> pd.DataFrame:
    row = {"client": "site-1", "defense": "none", "attack": "first", "round": 1, "embedder": "pixels"}
    return pd.DataFrame([{**row, "top1": float(index < hits), "chance_client": chance} for index in range(count)])


def judge(rows: Rows, identifiability: pd.DataFrame | None = None) -> Verdict:
    (verdict,) = judge_cells(pd.DataFrame(rows), identifiability)
    return verdict


SILENT = [[-0.1, -0.2]] * 4


@pytest.mark.parametrize(
    ("rows", "word"),
    [
        pytest.param(cell_rows({("first", 1): SILENT}), NOTHING_FOUND, id="silent"),
        pytest.param(cell_rows({("first", 1): SILENT}, explained=0.1), CANNOT_TELL, id="diverged"),
        pytest.param(cell_rows({("first", 1): SILENT}, explained=math.nan), CANNOT_TELL, id="not measured"),
        pytest.param(cell_rows({("first", 1): SILENT[:2]}), CANNOT_TELL, id="two draws"),
        pytest.param(cell_rows({("first", 1): SILENT, ("second", 1): [[0.2, -0.3]] * 4}), LEAKS, id="second attack"),
        pytest.param(cell_rows({("first", 1): SILENT, ("first", 9): [[0.3, 0.3]] * 4}), LEAKS, id="one round"),
        pytest.param(cell_rows({("first", 1): [*[[-0.2] * 12] * 3, [-0.2] * 11 + [0.4]]}), LEAKS, id="one of 48"),
        pytest.param(cell_rows({("first", 1): [[0.03], [0.04], [0.02], [0.03]]}), LEAKS, id="a little, everywhere"),
        pytest.param(cell_rows({("first", 1): [*SILENT[:1], [0.5, 0.1]]}), LEAKS, id="two draws that leak"),
        pytest.param(
            cell_rows({("first", 1): SILENT, ("first", 9): SILENT}, explained={("first", 1): 0.9, ("first", 9): 0.2}),
            CANNOT_TELL,
            id="one round not explained",
        ),
        pytest.param(
            [{**row, "explained": 0.1 if row["seed"] == 2 else 0.9} for row in cell_rows({("first", 1): SILENT})],
            CANNOT_TELL,
            id="one draw not explained",
        ),
        pytest.param(
            cell_rows(
                {("first", 1): [[-0.3], [0.045], [0.045], [0.049]], ("second", 1): [[0.01], [0.02], [0.01], [0.02]]}
            )
            + cell_rows({("third", 1): [[0.045], [0.045], [-0.01], [0.045]]}),
            LEAKS,
            id="little of an attack that is not the strongest, everywhere",
        ),
        pytest.param(
            [
                {**row, "text_accuracy": 0.8, "text_accuracy_prior": 0.2, "text_chance": 0.3}
                for row in cell_rows({("first", 1): SILENT})
            ],
            LEAKS,
            id="text that is read",
        ),
    ],
)
def test_words(rows: Rows, word: str) -> None:
    assert judge(rows).word == word


@pytest.mark.parametrize(("hits", "count", "leaks"), [(0, 5, False), (1, 5, False), (2, 5, True), (4, 5, True)])
def test_recognised_images_leak_although_none_is_similar(hits: int, count: int, leaks: bool) -> None:
    verdict = judge(cell_rows({("first", 1): SILENT}), look_ups(hits, count))
    assert (verdict.word == LEAKS) is leaks
    assert (verdict.identified, verdict.looked_up) == (hits, count)


def random_cell(generator: random.Random) -> tuple[Rows, pd.DataFrame]:
    """A cell with leaks where they are easily overlooked, or none."""
    attacks = ["first", "second", "third"][: generator.randint(1, 3)]
    rounds = [1, 6, 12][: generator.randint(1, 3)]
    draws, images = generator.randint(1, 6), generator.randint(1, 12)
    places = [(attack, number) for attack in attacks for number in rounds]
    gains = {place: [[generator.uniform(-0.4, 0.0) for _ in range(images)] for _ in range(draws)] for place in places}
    leak = generator.choice(["none", "second attack", "one image", "one round", "all"])
    if leak == "one image":
        gains[generator.choice(places)][generator.randrange(draws)][generator.randrange(images)] = 0.3
    elif leak != "none":
        leaking = {"second attack": {attacks[-1]}, "one round": set(attacks), "all": set(attacks)}[leak]
        late = {rounds[-1]} if leak == "one round" else set(rounds)
        for place in places:
            if place[0] in leaking and place[1] in late:
                gains[place] = [[generator.uniform(0.0, 0.5) for _ in range(images)] for _ in range(draws)]
    explained = {place: generator.choice([0.0, 0.3, 0.7, 1.0, 1.0, 1.0]) for place in places}
    diverged: dict[tuple[str, int, int], bool] = {}
    hits, count = generator.choice([(0, 5), (1, 5), (3, 5), (9, 40), (1, 40)])
    rows = cell_rows(gains, explained=explained)
    for row in rows:  # searches diverge in single draws
        row["explained"] *= diverged.setdefault((row["attack"], row["round"], row["seed"]), generator.random() > 0.1)
    return rows, look_ups(hits, count)


@pytest.mark.parametrize("seed", range(200))
def test_no_verdict_is_more_reassuring_than_its_rows(seed: int) -> None:
    rows, found = random_cell(random.Random(seed))
    verdict = judge(rows, found)
    best: dict[tuple[int, int], float] = {}
    drawn: Any = defaultdict(lambda: defaultdict(list))
    means, shares = defaultdict(list), dict[tuple[int, int], float]()
    for row in rows:
        gain = row["ssim"] - row["ssim_prior"]
        image = row["seed"], row["image"]
        best[image] = max(gain, best.get(image, -2.0))
        means[row["attack"], row["round"]].append(gain)
        drawn[row["attack"], row["round"]][row["seed"]].append(gain)
        place = row["round"], row["seed"]
        shares[place] = max(row["explained"], shares.get(place, 0.0))
    hits, count = int(found["top1"].sum()), len(found)
    by_chance = sum(
        Fraction(comb(count, k)) * Fraction(1, 81) ** k * Fraction(80, 81) ** (count - k)
        for k in range(hits, count + 1)
    )
    leaked = sum(gain > 0.05 for gain in best.values())
    assert (verdict.leaked, verdict.images) == (leaked, len(best))
    assert verdict.most == pytest.approx(max(best.values()))
    assert verdict.gain == pytest.approx(max(sum(each) / len(each) for each in means.values()))
    draws = len({row["seed"] for row in rows})
    everywhere = draws >= 3 and any(
        all(sum(gains) / len(gains) > 0 for gains in by_draw.values()) for by_draw in drawn.values()
    )
    if leaked or verdict.low > 0 or everywhere or (hits and by_chance <= 0.01):
        assert verdict.word == LEAKS
    elif verdict.word != LEAKS:  # a small gain on average, of another attack than the strongest, is a leak too
        silence_counts = draws >= 3 and min(shares.values()) >= 0.5
        assert verdict.word == (NOTHING_FOUND if silence_counts else CANNOT_TELL)
