"""Measures against closed forms, naive loops and brute force."""

import math
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import correlate1d

from leakpipe.errors import LeakpipeError
from leakpipe.metrics.matching import ASSIGNMENTS, match_to_originals, take_most_alike
from leakpipe.metrics.moments import compare
from leakpipe.metrics.rdlv import rdlv
from leakpipe.metrics.score import score_images
from leakpipe.metrics.similarity import measure_pair, psnr, ssim
from leakpipe.tables.headline import shorten, summarize
from leakpipe.tables.table import (
    KEY,
    LEAKAGE_COLUMNS,
    SCORE_COLUMNS,
    collect_accuracy,
    collect_leakage,
    read_table,
    write_table,
)


def naive_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """SSIM of one channel from Wang 2004, equation 13: Gaussian σ 1.5, 11 taps, borders left out."""
    taps = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    taps /= taps.sum()

    def local(image: np.ndarray) -> np.ndarray:
        return correlate1d(correlate1d(image, taps, axis=0), taps, axis=1)[5:-5, 5:-5]

    mx, my = local(x), local(y)
    vx, vy, cov = local(x * x) - mx**2, local(y * y) - my**2, local(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    return float((((2 * mx * my + c1) * (2 * cov + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean())


@pytest.mark.parametrize("seed", range(5))
def test_ssim_equals_the_formula(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.random((1, 32, 32))
    y = np.clip(x + 0.3 * rng.standard_normal(x.shape), 0, 1)
    assert ssim(x, y, data_range=1.0) == pytest.approx(naive_ssim(x[0], y[0]), abs=1e-12)
    assert ssim(x, x, data_range=1.0) == pytest.approx(1)


def test_ssim_scales_with_its_data_range() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((2, 1, 24, 24))
    assert ssim(255 * x, 255 * y, data_range=255) == pytest.approx(ssim(x, y, data_range=1.0), abs=1e-12)


def test_psnr_closed_forms() -> None:
    x = np.full((1, 8, 8), 0.5)
    assert psnr(x + 0.1, x, data_range=1.0) == pytest.approx(20)
    assert psnr(x + 0.1, x, data_range=2.0) == pytest.approx(20 + 20 * math.log10(2))
    assert psnr(x, x, data_range=1.0) == math.inf


def test_rdlv_closed_forms() -> None:
    assert rdlv(0.9, 0.45) == pytest.approx(1.0)
    assert rdlv(0.45, 0.45) == 0
    assert rdlv(0.0, 0.5) == -1


@pytest.mark.parametrize("similarity", [0.5, 0.0, -0.2, -1.0])
@pytest.mark.parametrize("prior", [0.0, -0.0, -1e-9, -0.2, -1.0])
def test_there_is_no_rdlv_to_a_prior_that_is_not_alike(similarity: float, prior: float) -> None:
    """0/0 and x/0 among them: neither infinite nor, by two minus signs, a leak."""
    assert math.isnan(rdlv(similarity, prior))


@pytest.mark.parametrize("seed", range(5))
def test_matching_is_the_best_of_all_permutations(seed: int) -> None:
    similarity = np.random.default_rng(seed).random((5, 5))
    chosen = match_to_originals(similarity)
    best = max(permutations(range(5)), key=lambda order: sum(similarity[i, j] for i, j in enumerate(order)))
    assert tuple(chosen) == best


@pytest.mark.parametrize("seed", range(5))
def test_the_published_tool_takes_each_images_most_alike(seed: int) -> None:
    similarity = np.random.default_rng(seed).random((5, 4))
    assert take_most_alike(similarity).tolist() == [max(range(4), key=list(row).__getitem__) for row in similarity]


def test_one_find_counts_once_unless_the_assignment_says_otherwise() -> None:
    """Two originals that are alike, one found well, the other not at all."""
    rng = np.random.default_rng(0)
    first, noise = rng.random((2, 1, 16, 16))
    originals = np.stack([first, np.clip(first + 0.1 * rng.standard_normal(first.shape), 0, 1)])
    rebuilt, priors = np.stack([noise, first]), np.full_like(originals, 0.5)
    by_name = {name: score_images(rebuilt, originals, priors, assignment=name) for name in ASSIGNMENTS}
    matched = {name: [row["reconstruction"] for row in rows] for name, rows in by_name.items()}
    assert matched == {"optimal": [1, 0], "per-image-maximum": [1, 1]}
    for rows in by_name.values():
        for row in rows:
            expected = naive_ssim(rebuilt[row["reconstruction"]][0], originals[row["position"]][0])
            assert row["ssim"] == pytest.approx(expected, abs=1e-12)
    with pytest.raises(LeakpipeError, match="unknown assignment 'best'; known: optimal, per-image-maximum"):
        score_images(rebuilt[:1], originals[:1], priors[:1], assignment="best")


def test_a_perceptual_distance_is_of_the_matched_pair() -> None:
    originals = np.random.default_rng(0).random((3, 1, 16, 16))
    rows = score_images(
        originals[::-1],
        originals,
        originals,
        data_range=2.0,
        lpips=lambda x, y, *, data_range: np.sum(x + y) + data_range,
    )
    assert [row["lpips"] for row in rows] == [2 * original.sum() + 2 for original in originals]
    (row,) = score_images(originals[:1], originals[:1], originals[:1])
    assert math.isnan(row["lpips"])


def test_scores_undo_a_shuffle() -> None:
    rng = np.random.default_rng(0)
    originals = rng.random((4, 1, 16, 16))
    order = [2, 0, 3, 1]
    rebuilt = np.clip(originals[order] + 0.05 * rng.standard_normal(originals.shape), 0, 1)
    priors = np.full_like(originals, 0.5)
    rows = score_images(rebuilt, originals, priors)
    assert [order[row["reconstruction"]] for row in rows] == [row["position"] for row in rows] == [0, 1, 2, 3]
    for row in rows:
        i = row["position"]
        assert row["ssim"] == pytest.approx(naive_ssim(rebuilt[row["reconstruction"]][0], originals[i][0]), abs=1e-12)
        assert row["ssim_prior"] == pytest.approx(naive_ssim(priors[i][0], originals[i][0]), abs=1e-12)
        assert row["rdlv"] == rdlv(row["ssim"], row["ssim_prior"])
        pair = rebuilt[row["reconstruction"]], originals[i]
        measures = measure_pair(compare(*pair), data_range=1.0)
        assert {name: row[name] for name in measures} == pytest.approx(measures, rel=0, abs=0, nan_ok=True)
    with pytest.raises(LeakpipeError, match="must have one shape"):
        score_images(rebuilt[:3], originals, priors)


def test_an_image_that_came_out_as_another_clients_counts() -> None:
    rng = np.random.default_rng(0)
    originals, others = rng.random((2, 1, 16, 16)), rng.random((3, 1, 16, 16))
    candidates = np.concatenate([others[:2], others[2:], originals[1:]])
    rows = score_images(candidates, originals, np.full_like(originals, 0.5))
    assert rows[1]["reconstruction"] == 3
    assert rows[1]["ssim"] == pytest.approx(1.0)
    assert score_images(candidates, originals[1:], originals[:1])[0]["reconstruction"] == 3


def test_scores_forgive_brightness_only_where_they_say_so() -> None:
    """The prior is less alike than nothing, so there is no RDLV; matching stays on plain SSIM."""
    original = np.random.default_rng(0).random((1, 1, 16, 16))
    (row,) = score_images(0.4 + 0.1 * original, original, 1 - original)
    assert row["ssim"] < 0.5 < 0.999 < min(row["ssim_affine"], row["ssim_min_max"])
    assert row["psnr"] == row["psnr_registered"] < 20 < 100 < row["psnr_affine"]
    assert row["ssim_prior"] < 0
    assert math.isnan(row["rdlv"])


def score_table(**changes: object) -> pd.DataFrame:
    row = {
        "experiment": "e", "defense": "none", "seed": 0, "round": 1, "client": "site-9", "attack": "bn-aware",
        "image": 5, "reconstruction": 0, "ssim": 0.9, "ssim_prior": 0.45, "ssim_affine": 0.92,
        "ssim_min_max": 0.91, "ms_ssim": 0.93, "lpips": 0.1, "psnr": 30.0, "psnr_affine": 31.0,
        "psnr_registered": 30.5, "mse": 0.001, "rdlv": 1.0, "iterations": 7,
    }  # fmt: skip
    return pd.DataFrame([{**row, **changes}], columns=SCORE_COLUMNS)


def timing(table: pd.DataFrame, seconds: float, explained: float | None = 0.9) -> dict[str, object]:
    return {"cell": dict(table.iloc[0][KEY]), "explained": explained, "seconds": seconds}


def test_collecting_joins_the_right_seconds() -> None:
    late, early = score_table(round=12), score_table(round=2)
    table = collect_leakage([late, early], [timing(early, 1.5, explained=None), timing(late, 2.5)])
    assert list(table.columns) == LEAKAGE_COLUMNS
    assert table["round"].tolist() == [2, 12]
    assert table["seconds"].tolist() == [1.5, 2.5]
    assert table["explained"].tolist() == pytest.approx([math.nan, 0.9], nan_ok=True)
    with pytest.raises(LeakpipeError, match="no run record for attack"):
        collect_leakage([late, early], [timing(early, 1.5)])
    with pytest.raises(LeakpipeError, match="no scores"):
        collect_leakage([late], [])


def test_headline_numbers_are_those_of_the_table() -> None:
    scores = [score_table(seed=seed, ssim=value, rdlv=value * 2) for seed, value in enumerate((0.9, 0.8, 0.4))]
    leakage = collect_leakage(scores, [timing(score, 1.0) for score in scores])
    rows = [
        {"experiment": "e", "defense": "none", "seed": s, "round": r, "test_accuracy": a, "validation_accuracy": 1}
        for s, r, a in ((0, 1, 0.5), (0, 2, 0.9), (1, 1, 0.5), (1, 2, 1.0))
    ]
    accuracy = collect_accuracy([pd.DataFrame(rows)])
    headline = summarize(leakage, accuracy)
    cell = headline["leakage"]["bn-aware"]["site-9"]["none"]
    assert cell == {
        "images": 3,
        "ssim_mean": 0.7,
        "ssim_min": 0.4,
        "ssim_max": 0.9,
        "rdlv_mean": 1.4,
        "rdlv_min": 0.8,
        "rdlv_max": 1.8,
    }
    assert headline["accuracy"] == {"none": 0.95}
    (verdict,) = headline["verdicts"]["site-9"].values()
    line = {"leaking": int(verdict["word"] == "leaks"), "defenses": 1, "leaked": verdict["leaked"], "images": 3}
    assert shorten(headline) == {**line, "gain": verdict["gain"], "identified": None, "accuracy": 0.95}
    slower = leakage.assign(seconds=99.0)
    assert summarize(slower, accuracy)["fingerprint"] == headline["fingerprint"]
    worse = leakage.assign(ssim=leakage["ssim"] + 1e-12)
    assert summarize(worse, accuracy)["fingerprint"] != headline["fingerprint"]


def test_tables_survive_csv_and_parquet(tmp_path) -> None:
    table = score_table(ssim=1 / 3, rdlv=float("nan"), text_read="01")
    for name in ("t.csv", "t.parquet"):
        write_table(tmp_path / name, table)
        pd.testing.assert_frame_equal(read_table(tmp_path / name, SCORE_COLUMNS), table)
    with pytest.raises(LeakpipeError, match="column 'explained' is missing"):
        read_table(tmp_path / "t.csv", LEAKAGE_COLUMNS)
    with pytest.raises(LeakpipeError, match="cannot be read"):
        read_table(tmp_path / "none.csv", [])
    (tmp_path / "bad.parquet").write_text("x")
    with pytest.raises(LeakpipeError, match=r"bad.parquet: is not a parquet table"):
        read_table(tmp_path / "bad.parquet", [])
    write_table(tmp_path / "text.csv", table.assign(ssim="much"))
    with pytest.raises(LeakpipeError, match=r"text\.csv: column 'ssim': expected numbers, there is text among them"):
        read_table(tmp_path / "text.csv", SCORE_COLUMNS)


def test_the_short_line_is_the_worst_of_the_verdicts() -> None:
    def cell(word: str, leaked: int, gain: float, identified: float | None) -> dict[str, object]:
        return {"word": word, "leaked": leaked, "images": 5, "gain": gain, "identified": identified}

    summary = {
        "verdicts": {
            "one": {"none": cell("leaks", 3, 0.5, None), "loud": cell("no leak found", 0, -0.1, 0.2)},
            "two": {"none": cell("leaks", 1, 0.1, 0.9), "loud": cell("cannot tell", 0, -0.3, None)},
        },
        "accuracy": {"none": 0.9, "loud": 0.7},
    }
    expected = {"leaking": 1, "defenses": 2, "leaked": 4, "images": 10, "gain": 0.5, "identified": 0.9, "accuracy": 0.7}
    assert shorten(summary) == expected
