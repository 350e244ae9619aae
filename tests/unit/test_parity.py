"""200 random image sets: RDLV and its reductions, PSNR and SSIM against code written from the formulas."""

import math

import numpy as np
import pandas as pd
import pytest
from skimage.metrics import structural_similarity

from leakpipe.metrics.score import score_images
from leakpipe.tables.comparisons import client_rdlv
from leakpipe.tables.table import KEY

COORDINATES = np.arange(-5, 6)
WINDOW = np.exp(-(COORDINATES[:, None] ** 2 + COORDINATES[None, :] ** 2) / (2 * 1.5**2))
WINDOW /= WINDOW.sum()


def image_set(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Reconstructions, originals, priors and their range; every fifth prior is a negative, every seventh flat black."""
    rng = np.random.default_rng(seed)
    shape = (rng.integers(1, 6), rng.choice([1, 3]), rng.integers(11, 25), rng.integers(11, 25))
    originals = rng.random(shape)
    strength = rng.random((shape[0], 1, 1, 1))
    rebuilt = strength * originals + (1 - strength) * rng.random(shape)
    priors = originals * rng.random() + 0.3 * rng.random(shape)
    if seed % 5 == 0:
        priors[0] = 1 - originals[0]
    if seed % 7 == 0:
        originals[-1], priors[-1] = 1, 0
    data_range = float(rng.choice([1.0, 255.0]))
    return data_range * rebuilt, data_range * originals, data_range * priors, data_range


def formula_ssim(x: np.ndarray, y: np.ndarray, data_range: float) -> float:
    """Wang 2004, equations 13 to 16, window by window."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    patches = [np.lib.stride_tricks.sliding_window_view(image, (11, 11), axis=(1, 2)) for image in (x, y)]
    means = [(WINDOW * patch).sum((-2, -1)) for patch in patches]
    apart = [patch - mean[..., None, None] for patch, mean in zip(patches, means, strict=True)]
    (mx, my), (dx, dy) = means, apart
    vx, vy, cov = ((WINDOW * product).sum((-2, -1)) for product in (dx * dx, dy * dy, dx * dy))
    return float(np.mean((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))))


def formula_psnr(x: np.ndarray, y: np.ndarray, data_range: float) -> float:
    return 20 * math.log10(data_range) - 10 * math.log10(sum((x - y).ravel() ** 2) / x.size)


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_scores_are_those_of_the_formulas(first: int) -> None:
    without = 0
    for seed in range(first, first + 50):
        rebuilt, originals, priors, data_range = image_set(seed)
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": data_range}
        leaks = []
        rows = score_images(rebuilt, originals, priors, data_range=data_range)
        for row in rows:
            image, original = rebuilt[row["reconstruction"]], originals[row["position"]]
            before = formula_ssim(priors[row["position"]], original, data_range)
            now = formula_ssim(image, original, data_range)
            assert row["ssim"] == pytest.approx(now, abs=1e-6)
            assert row["ssim_prior"] == pytest.approx(before, abs=1e-6)
            assert row["psnr"] == pytest.approx(formula_psnr(image, original, data_range), abs=1e-6)
            assert abs(row["ssim"] - structural_similarity(image, original, channel_axis=0, **options)) < 1e-12
            leaks.append((now - before) / before if before > 0 else math.nan)
            assert row["rdlv"] == pytest.approx(leaks[-1], rel=1e-6, abs=1e-6, nan_ok=True)
        (client,) = client_rdlv(pd.DataFrame([{**dict.fromkeys(KEY, 0), **row} for row in rows])).itertuples()
        known = [leak for leak in leaks if not math.isnan(leak)]
        without += len(leaks) - len(known)
        assert (client.images, client.rdlv_images) == (len(leaks), len(known))
        assert client.rdlv_max == pytest.approx(max(known, default=math.nan), rel=1e-6, abs=1e-6, nan_ok=True)
        mean = sum(known) / len(known) if known else math.nan
        assert client.rdlv_mean == pytest.approx(mean, rel=1e-6, abs=1e-6, nan_ok=True)
    assert without > 0, "no prior without a ratio to it among the sets"


def test_clients_and_rounds_are_kept_apart() -> None:
    cell = dict(zip(KEY, ("e", "none", 1, 1, "site-9", "a"), strict=True))
    leaks = [(1, 0.5), (1, math.nan), (1, -0.1), (12, math.nan)]
    table = client_rdlv(pd.DataFrame([{**cell, "round": number, "rdlv": leak} for number, leak in leaks]))
    assert table[["round", "images", "rdlv_images"]].to_numpy().tolist() == [[1, 3, 2], [12, 1, 0]]
    np.testing.assert_allclose(table[["rdlv_max", "rdlv_mean"]], [[0.5, 0.2], [math.nan, math.nan]])
