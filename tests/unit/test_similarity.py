"""Measures that forgive brightness, contrast or a shift, against least squares, loops and closed forms."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.ndimage import shift as move
from skimage.metrics import mean_squared_error, structural_similarity

from leakpipe.errors import LeakpipeError
from leakpipe.metrics.moments import compare
from leakpipe.metrics.similarity import measure_pair, mse, psnr, registered_psnr, ssim


def fit_gain_and_offset(image: np.ndarray, original: np.ndarray) -> tuple[float, float]:
    return compare(image, original).gain_and_offset


def measured(column: str) -> Callable[..., float]:
    """A column of the leakage table, as a function of two images and their data range."""
    return lambda image, original, **settings: measure_pair(compare(image, original), **settings)[column]


affine_ssim, affine_psnr, min_max_ssim = map(measured, ("ssim_affine", "psnr_affine", "ssim_min_max"))


def pictures(seed: int, *, channels: int = 3, height: int = 16, width: int = 19) -> tuple[np.ndarray, np.ndarray]:
    """An original and a noisy version of it with other brightness and contrast; float32 in [0, 1], as stored."""
    rng = np.random.default_rng(seed)
    original = rng.random((channels, height, width))
    image = np.clip(0.2 + 0.5 * original + 0.1 * rng.standard_normal(original.shape), 0, 1)
    return image.astype(np.float32), original.astype(np.float32)


def skimage_ssim(image: np.ndarray, original: np.ndarray, data_range: float) -> float:
    """Channel by channel, as scikit-image documents Wang's settings."""
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": data_range}
    pairs = zip(image.astype(float), original.astype(float), strict=True)
    return float(np.mean([structural_similarity(x, y, **options) for x, y in pairs]))


def naive_shifted_psnr(image: np.ndarray, original: np.ndarray, data_range: float, radius: int) -> float:
    """Pixel by pixel: for every shift, squared errors where both images have a pixel."""
    channels, height, width = image.shape
    best = -math.inf
    for down in range(-radius, radius + 1):
        for right in range(-radius, radius + 1):
            errors = [
                (float(image[c, y + down, x + right]) - float(original[c, y, x])) ** 2
                for c in range(channels)
                for y in range(height)
                for x in range(width)
                if 0 <= y + down < height and 0 <= x + right < width
            ]
            error = sum(errors) / len(errors)
            best = max(best, math.inf if error == 0 else 10 * math.log10(data_range**2 / error))
    return best


@pytest.mark.parametrize("seed", range(3))
def test_mse_is_scikit_images(seed: int) -> None:
    image, original = pictures(seed)
    assert mse(image, original) == pytest.approx(mean_squared_error(image.astype(float), original.astype(float)))
    assert mse(original, original) == 0
    assert 10 * math.log10(1 / mse(image, original)) == pytest.approx(psnr(image, original, data_range=1.0))


def test_mse_does_not_overflow_small_types() -> None:
    black, white = np.zeros((1, 4, 4), np.uint8), np.full((1, 4, 4), 255, np.uint8)
    assert mse(black, white) == 255**2


@pytest.mark.parametrize("seed", range(5))
def test_gain_and_offset_are_those_of_least_squares(seed: int) -> None:
    image, original = (picture.astype(float) for picture in pictures(seed))
    design = np.stack([image.ravel(), np.ones(image.size)], axis=1)
    expected, *_ = np.linalg.lstsq(design, original.ravel())
    assert expected[0] > 0
    assert fit_gain_and_offset(image, original) == pytest.approx(tuple(expected), rel=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1.0])
def test_a_constant_image_is_fitted_by_the_originals_mean(value: float) -> None:
    _, original = pictures(0)
    gain, offset = fit_gain_and_offset(np.full(original.shape, value), original)
    assert gain == 0
    assert offset == pytest.approx(original.astype(float).mean(), rel=1e-12)


def test_a_negative_picture_is_not_found() -> None:
    _, original = pictures(0)
    gain, offset = fit_gain_and_offset(1 - original, original)
    assert (gain, offset) == (0, pytest.approx(original.astype(float).mean()))
    flat = np.full(original.shape, offset)
    assert affine_ssim(1 - original, original, data_range=1.0) == pytest.approx(ssim(flat, original, data_range=1.0))


def test_no_gain_of_a_grid_fits_better() -> None:
    for image, original in (pictures(0), pictures(1)[::-1], (1 - pictures(2)[0], pictures(2)[1])):
        gain, offset = fit_gain_and_offset(image, original)
        least = mse(gain * image.astype(float) + offset, original)
        for other in np.linspace(0, 3, 61):
            best_offset = original.astype(float).mean() - other * image.astype(float).mean()
            assert least <= mse(other * image.astype(float) + best_offset, original) + 1e-12


@pytest.mark.parametrize("seed", range(3))
def test_affine_measures_are_scikit_images_after_the_fit(seed: int) -> None:
    image, original = pictures(seed)
    design = np.stack([image.astype(float).ravel(), np.ones(image.size)], axis=1)
    fitted = (design @ np.linalg.lstsq(design, original.astype(float).ravel())[0]).reshape(image.shape)
    assert (fitted < 0).any() or (fitted > 1).any(), "nothing to clip, so clipping would not be noticed"
    assert affine_ssim(image, original, data_range=1.0) == pytest.approx(skimage_ssim(fitted, original, 1.0), abs=1e-9)
    error = mean_squared_error(fitted, original.astype(float))
    assert affine_psnr(image, original, data_range=2.0) == pytest.approx(10 * math.log10(4 / error), abs=1e-6)


@pytest.mark.parametrize(("gain", "offset"), [(2.0, 0.25), (0.5, -0.125), (0.25, 0.0)])
def test_affine_measures_forgive_any_brightness_and_contrast(gain: float, offset: float) -> None:
    _, original = pictures(0)
    image = (original.astype(float) - offset) / gain
    assert affine_ssim(image, original, data_range=1.0) == pytest.approx(1, abs=1e-9)
    assert affine_psnr(image, original, data_range=1.0) > 250
    steps = np.random.default_rng(0).integers(0, 8, (1, 16, 16)) / 8  # exact in binary: nothing rounds
    assert affine_psnr((steps - offset) / gain, steps, data_range=1.0) == math.inf
    assert psnr(image, original, data_range=1.0) < 40


@pytest.mark.parametrize("seed", range(5))
def test_affine_and_registered_psnr_are_never_below_psnr(seed: int) -> None:
    for image, original in (pictures(seed), pictures(seed)[::-1], (1 - pictures(seed)[0], pictures(seed)[1])):
        plain = psnr(image, original, data_range=1.0)
        assert affine_psnr(image, original, data_range=1.0) >= plain - 1e-9
        assert registered_psnr(image, original, data_range=1.0) >= plain


@pytest.mark.parametrize("data_range", [1.0, 255.0])
def test_min_max_ssim_is_that_of_the_stretched_image(data_range: float) -> None:
    image, original = pictures(0)
    image, original = image * data_range, original * data_range
    stretched = np.interp(image.astype(float), (image.min(), image.max()), (0, data_range))
    assert min_max_ssim(image, original, data_range=data_range) == pytest.approx(
        skimage_ssim(stretched, original, data_range), abs=1e-9
    )


def test_min_max_ssim_closed_forms() -> None:
    _, original = pictures(0)
    original = (original - original.min()) / (original.max() - original.min())
    assert min_max_ssim(0.4 + 0.1 * original, original, data_range=1.0) == pytest.approx(1, abs=1e-6)
    flat = np.full(original.shape, 0.3)
    assert min_max_ssim(flat, original, data_range=1.0) == ssim(flat, original, data_range=1.0)


@pytest.mark.parametrize("radius", [0, 1, 2])
def test_registered_psnr_is_the_best_of_all_shifts(radius: int) -> None:
    image, original = pictures(radius, channels=2, height=6, width=7)
    found = registered_psnr(image, original, data_range=2.0, radius=radius)
    assert found == pytest.approx(naive_shifted_psnr(image, original, 2.0, radius), abs=1e-9)
    if radius == 0:
        assert found == psnr(image, original, data_range=2.0)


@pytest.mark.parametrize("by", [(1, 0), (0, -2), (-2, 1), (2, 2)])
def test_a_picture_beside_its_place_is_found_up_to_the_radius(by: tuple[int, int]) -> None:
    _, original = pictures(0)
    moved = move(original, (0, *by), order=0, cval=0.5)
    assert psnr(moved, original, data_range=1.0) < 15
    assert registered_psnr(moved, original, data_range=1.0) == math.inf
    assert registered_psnr(moved, original, data_range=1.0, radius=max(map(abs, by)) - 1) < 15


def test_a_faint_picture_on_a_bright_ground_is_not_lost_to_rounding() -> None:
    """Its variance is 1e-13 of its squares: what is left of that must still be its variance."""
    original = np.random.default_rng(0).random((1, 32, 32))
    gain, offset = fit_gain_and_offset(100 + 1e-5 * original, original)
    assert gain == pytest.approx(1e5, rel=1e-8)
    assert affine_ssim(100 + 1e-5 * original, original, data_range=1.0) == pytest.approx(1, abs=1e-8)
    fitted = gain * (100 + 1e-5 * original) + offset
    assert affine_ssim(100 + 1e-5 * original, original, data_range=1.0) == pytest.approx(
        skimage_ssim(fitted, original, 1.0), abs=1e-8
    )


def test_images_of_other_shapes_are_refused() -> None:
    gray, colour = np.zeros((1, 16, 16)), np.zeros((3, 16, 16))
    for measure in (ssim, affine_ssim, min_max_ssim, psnr, affine_psnr, registered_psnr):
        with pytest.raises(LeakpipeError, match="must have one shape"):
            measure(gray, colour, data_range=1.0)
    with pytest.raises(LeakpipeError, match="must have one shape"):
        mse(gray, colour)


def test_images_that_are_too_small_are_named_in_a_sentence() -> None:
    small, enough = np.zeros((1, 10, 32)), np.zeros((1, 11, 11))
    for measure in (ssim, affine_ssim, min_max_ssim):
        with pytest.raises(LeakpipeError, match="11×11 pixels, which do not fit into an image of 10×32"):
            measure(small, small, data_range=1.0)
        assert measure(enough, enough, data_range=1.0) == pytest.approx(1)
    with pytest.raises(LeakpipeError, match="an image of 2×32 pixels cannot be shifted by 2"):
        registered_psnr(small[:, :2], small[:, :2], data_range=1.0)
