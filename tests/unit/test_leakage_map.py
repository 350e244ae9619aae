"""Leakage maps against scikit-image's full SSIM maps, and closed forms."""

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from leakpipe.metrics.leakage_map import leakage_map
from leakpipe.metrics.similarity import ssim


def skimage_map(image: np.ndarray, original: np.ndarray, data_range: float) -> np.ndarray:
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": data_range}
    return structural_similarity(image, original, full=True, channel_axis=0, **options)[1].mean(axis=0)


@pytest.mark.parametrize("shape", [(1, 11, 11), (3, 16, 21)])
def test_it_is_the_difference_of_scikit_images_maps(shape: tuple[int, int, int]) -> None:
    rebuilt, original, prior = 2 * np.random.default_rng(0).random((3, *shape))
    found = leakage_map(rebuilt, original, prior, data_range=2.0)
    expected = skimage_map(rebuilt, original, 2.0) - skimage_map(prior, original, 2.0)
    assert found.shape == shape[1:]
    inner = np.s_[5:-5, 5:-5]
    np.testing.assert_allclose(found[inner], expected[inner], atol=1e-12)
    assert np.isfinite(found).sum() == (shape[1] - 10) * (shape[2] - 10) == np.isfinite(found[inner]).sum()


def test_its_mean_is_what_ssim_gained() -> None:
    rebuilt, original, prior = np.random.default_rng(1).random((3, 3, 20, 24)).astype(np.float32)
    gained = ssim(rebuilt, original, data_range=1.0) - ssim(prior, original, data_range=1.0)
    assert np.nanmean(leakage_map(rebuilt, original, prior, data_range=1.0)) == pytest.approx(gained, abs=1e-12)


def test_it_says_where_the_leak_is() -> None:
    """The left half is rebuilt, the right half is what it was before."""
    original, prior = np.random.default_rng(2).random((2, 1, 32, 40))
    rebuilt = np.where(np.arange(40) < 20, original, prior)
    found = leakage_map(rebuilt, original, prior, data_range=1.0)
    assert found[5:-5, 5:15].min() > 0.5
    np.testing.assert_allclose(found[5:-5, 25:-5], 0, atol=1e-12)
    np.testing.assert_array_equal(leakage_map(prior, original, prior, data_range=1.0)[5:-5, 5:-5], 0)
