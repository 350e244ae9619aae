"""Looking reconstructions up among all training images, against a naive search, closed forms and simulation."""

import numpy as np
import pandas as pd
import pytest

from leakpipe.errors import LeakpipeError
from leakpipe.metrics.identifiability import expected_hits, identify, rank_true
from leakpipe.tables.table import collect_identifiability, identifiability_columns


def naive_places(query: np.ndarray, candidates: np.ndarray, true: int) -> list[int]:
    """Every place that the true candidate can take when candidates are sorted by distance."""
    distances = [sum((a - b) ** 2 for a, b in zip(query, row, strict=True)) ** 0.5 for row in candidates]
    nearer = sum(distance < distances[true] for distance in distances)
    same = sum(distance == distances[true] for distance in distances)
    return list(range(nearer + 1, nearer + same + 1))


@pytest.mark.parametrize("seed", range(20))
def test_look_ups_equal_a_naive_search(seed: int) -> None:
    """Coordinates are small whole numbers, so that many distances are exactly equal."""
    rng = np.random.default_rng(seed)
    candidates = rng.integers(0, 3, size=(15, 3)).astype(np.float32)
    queries, priors = rng.integers(0, 3, size=(2, 6, 3)).astype(np.float32)
    true = rng.choice(15, size=6, replace=False)
    rows = identify(queries, priors, candidates, true=true, top=(1, 4))
    assert len(rows) == 6
    for index, row in enumerate(rows):
        for suffix, embedded in (("", queries), ("_prior", priors)):
            places = naive_places(embedded[index], candidates, int(true[index]))
            assert row[f"rank{suffix}"] == pytest.approx(np.mean(places))
            for k in (1, 4):
                assert row[f"top{k}{suffix}"] == pytest.approx(np.mean([place <= k for place in places]))
        assert row["candidates"] == 15
        assert row["chance"] == pytest.approx(1 / 15)
        assert row["chance_client"] == pytest.approx(6 / 15)


def test_ties_count_as_often_as_random_order_would_hit() -> None:
    """One candidate is nearer, three are as near, one of which is the true one."""
    candidates = np.array([[1.0], [2.0], [-2.0], [2.0], [9.0]])
    nearer, tied = rank_true(np.array([[0.0]]), candidates, np.array([2]))
    assert (nearer.tolist(), tied.tolist()) == ([1], [3])
    assert [float(expected_hits(nearer, tied, k)[0]) for k in range(1, 6)] == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])


@pytest.mark.parametrize("k", [1, 5, 20])
def test_embeddings_that_tell_nothing_apart_are_worth_chance(k: int) -> None:
    nothing = np.zeros((20, 4))
    rows = identify(nothing[:2], nothing[:2], nothing, true=np.array([3, 7]), top=(k,))
    assert [row[f"top{k}"] for row in rows] == pytest.approx([k / 20] * 2)
    assert [row["rank"] for row in rows] == [10.5, 10.5]


def test_rounding_does_not_decide() -> None:
    """Two copies of the true image, embedded with float32's rounding: neither is nearer."""
    rng = np.random.default_rng(0)
    true, other = rng.standard_normal((2, 512)).astype(np.float32)
    candidates = np.stack([true, np.nextafter(true, np.float32(9)), other])
    nearer, tied = rank_true(candidates[1:2], candidates, np.array([0]))
    assert (nearer.tolist(), tied.tolist()) == ([0], [2])


def test_chance_is_between_the_two_that_are_given() -> None:
    """Noise hits its own image with `chance`; if it may choose among the client's images, with `chance_client`."""
    rng = np.random.default_rng(1)
    fixed, chosen, own = [], [], np.arange(8)
    for _ in range(400):
        candidates, noise = rng.standard_normal((40, 16)), rng.standard_normal((8, 16))
        rows = identify(noise, noise, candidates, true=own, top=(1,))
        fixed += [row["top1"] for row in rows]
        nearest = np.linalg.norm(noise[:, None] - candidates, axis=2).argmin(axis=1)
        chosen += (nearest < 8).tolist()
    assert np.mean(fixed) == pytest.approx(rows[0]["chance"], abs=0.01)
    assert np.mean(chosen) == pytest.approx(rows[0]["chance_client"], abs=0.02)


def test_what_cannot_be_looked_up_is_said() -> None:
    table, good = np.zeros((3, 2)), np.array([0])
    with pytest.raises(LeakpipeError, match=r"queries \(1, 3\) and candidates \(3, 2\)"):
        rank_true(np.zeros((1, 3)), table, good)
    for true in ([3], [-1], [0, 1]):
        with pytest.raises(LeakpipeError, match="expected an index below 3 for each query"):
            rank_true(np.zeros((1, 2)), table, np.array(true))
    with pytest.raises(LeakpipeError, match="not finite"):
        rank_true(np.array([[np.nan, 0.0]]), table, good)


def test_tables_are_stacked_and_sorted() -> None:
    columns = identifiability_columns((1, 5))
    row = dict.fromkeys(columns, 0) | {"experiment": "e", "attack": "a", "client": "c", "embedder": "pixels"}
    tables = [
        pd.DataFrame([row | {"defense": defense, "image": image, "embedder": name}])
        for defense in ("none", "loud")
        for image in (9, 2)
        for name in ("pixels", "global-model")
    ]
    stacked = collect_identifiability(tables, top=(1, 5))
    assert list(stacked.columns) == columns
    first = stacked[["defense", "image", "embedder"]].head(3).to_numpy().tolist()
    assert first == [["loud", 2, "global-model"], ["loud", 2, "pixels"], ["loud", 9, "global-model"]]
