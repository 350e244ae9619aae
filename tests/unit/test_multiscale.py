"""MS-SSIM against a slow version from Wang 2003, window by window, and closed forms."""

import math

import numpy as np
import pytest
from scipy.ndimage import correlate1d

from leakpipe.metrics import multiscale
from leakpipe.metrics.moments import compare
from leakpipe.metrics.similarity import ssim

WEIGHTS = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]


def ms_ssim(image: np.ndarray, original: np.ndarray, *, data_range: float) -> float:
    return multiscale.ms_ssim(compare(image, original), data_range=data_range)


def naive_ms_ssim(x: np.ndarray, y: np.ndarray, data_range: float) -> float:
    """One channel; contrast and structure as two factors, as equation 7 writes them."""
    taps = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    taps /= taps.sum()
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    value = 1.0
    for scale, weight in enumerate(WEIGHTS, start=1):
        mx, my, mxx, myy, mxy = (
            correlate1d(correlate1d(image, taps, axis=0), taps, axis=1)[5:-5, 5:-5]
            for image in (x, y, x * x, y * y, x * y)
        )
        vx, vy, cov = mxx - mx * mx, myy - my * my, mxy - mx * my
        deviations = np.sqrt(np.maximum(vx, 0) * np.maximum(vy, 0))
        contrast, structure = (2 * deviations + c2) / (vx + vy + c2), (cov + c2 / 2) / (deviations + c2 / 2)
        local = contrast * structure
        if scale == len(WEIGHTS):
            local = local * (2 * mx * my + c1) / (mx * mx + my * my + c1)
        value *= max(0.0, local.mean()) ** weight
        x, y = (
            np.array([[image[i : i + 2, j : j + 2].mean() for j in range(0, image.shape[1] - 1, 2)]
                      for i in range(0, image.shape[0] - 1, 2)])
            for image in (x, y)
        )  # fmt: skip
    return value


def pictures(seed: int, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Structure at every scale, and a noisy, darker version of it."""
    rng = np.random.default_rng(seed)
    original = (
        sum(
            np.kron(rng.random((shape[0], -(-shape[1] // size), -(-shape[2] // size))), np.ones((1, size, size)))[
                :, : shape[1], : shape[2]
            ]
            for size in (1, 4, 16, 64)
        )
        / 4
    )
    return 0.7 * original + 0.1 * rng.random(shape), original


@pytest.mark.parametrize("shape", [(1, 176, 176), (3, 179, 201)])
@pytest.mark.parametrize("data_range", [1.0, 255.0])
def test_it_is_the_formula(shape: tuple[int, int, int], data_range: float) -> None:
    image, original = (data_range * picture for picture in pictures(0, shape))
    expected = np.mean([naive_ms_ssim(x, y, data_range) for x, y in zip(image, original, strict=True)])
    found = ms_ssim(image, original, data_range=data_range)
    assert found == pytest.approx(expected, abs=1e-10)
    assert abs(found - ssim(image, original, data_range=data_range)) > 0.01, "no different from a single scale"


def test_closed_forms() -> None:
    _, original = pictures(1, (1, 176, 176))
    assert ms_ssim(original, original, data_range=1.0) == pytest.approx(1, abs=1e-12)
    assert ms_ssim(1 - original, original, data_range=1.0) == 0, "a negative has no structure of the original's"
    black, grey = np.zeros_like(original), np.full_like(original, 0.5)
    luminance = 0.01**2 / (0.25 + 0.01**2)  # all that two flat images differ in, and it counts at the last scale only
    assert ms_ssim(black, grey, data_range=1.0) == pytest.approx(luminance**0.1333, rel=1e-9)


@pytest.mark.parametrize("side", [11, 32, 175])
def test_smaller_images_have_none(side: int) -> None:
    image = np.zeros((1, side, 300))
    assert math.isnan(ms_ssim(image, image, data_range=1.0))
    assert math.isnan(ms_ssim(image.swapaxes(1, 2), image.swapaxes(1, 2), data_range=1.0))
