"""The similarity of two images.

Images are arrays of shape (channels, height, width) whose values lie in [0, data_range]. Volumes are arrays of shape
(channels, depth, height, width); windows and shifts then extend in all three directions.
"""

import math
from collections.abc import Sequence
from itertools import product

import numpy as np

from leakpipe.errors import LeakpipeError
from leakpipe.metrics.moments import PairMoments, compare, require_one_shape
from leakpipe.metrics.multiscale import ms_ssim

REGISTRATION_RADIUS = 2  # pixels


def measure_pair(pair: PairMoments, *, data_range: float) -> dict[str, float]:
    """All measures of one pair, by their columns in the leakage table; the images are filtered only once.

    Returns:
        What `ssim`, `affine_ssim`, `min_max_ssim`, `leakpipe.metrics.multiscale.ms_ssim`, `psnr`, `affine_psnr`,
        `registered_psnr` and `mse` return.
    """
    image, original = pair.image.pixels, pair.original.pixels
    return {
        "ssim": pair.ssim(data_range=data_range),
        "ssim_affine": affine_ssim(pair, data_range=data_range),
        "ssim_min_max": min_max_ssim(pair, data_range=data_range),
        "ms_ssim": ms_ssim(pair, data_range=data_range),
        "psnr": psnr(image, original, data_range=data_range),
        "psnr_affine": affine_psnr(pair, data_range=data_range),
        "psnr_registered": registered_psnr(image, original, data_range=data_range),
        "mse": mse(image, original),
    }


def mse(image: np.ndarray, original: np.ndarray) -> float:
    """Mean squared error over all channels and pixels, in squared units of the values; 0 for identical images.

    Args:
        image: Any shape.
        original: Same shape.
    """
    require_one_shape(image, original)
    difference = np.subtract(image, original, dtype=np.float64)
    np.square(difference, out=difference)
    return float(difference.mean())


def ssim(image: np.ndarray, original: np.ndarray, *, data_range: float) -> float:
    """Structural similarity (Wang 2004) with its Gaussian window: σ 1.5, 11×11 pixels, biased covariance.

    Only windows that lie whole inside the image count: the mean is over the (height − 10)·(width − 10) inner pixels,
    22×22 of a 32×32 image, one of an 11×11 image. The outer 5 pixels enter through the windows alone.

    Args:
        image: Shape (channels, height, width), at least 11×11 pixels.
        original: Same shape.
        data_range: Largest minus smallest possible value, 1.0 for images in [0, 1].

    Returns:
        In [−1, 1]; 1 for identical images. Channels are averaged.

    Raises:
        LeakpipeError: Where the window does not fit into the image.
    """
    return compare(image, original).ssim(data_range=data_range)


def psnr(image: np.ndarray, original: np.ndarray, *, data_range: float) -> float:
    """Peak signal-to-noise ratio in dB: 10·log10(data_range² / MSE); infinite for identical images.

    Args:
        image: Any shape.
        original: Same shape.
        data_range: Largest minus smallest possible value, 1.0 for images in [0, 1].
    """
    return _decibels(mse(image, original), data_range)


def affine_ssim(pair: PairMoments, *, data_range: float) -> float:
    """SSIM after `PairMoments.gain_and_offset`.

    The fit is that of least squares, so it shrinks an image that is unlike the original towards the original's mean;
    it need not be the fit with the highest SSIM. What it makes is not clipped to the data range.

    Returns:
        In [−1, 1]; 1 where the original is a positive multiple of the image plus a constant.
    """
    gain, offset = pair.gain_and_offset
    return pair.ssim(data_range=data_range, gain=gain, offset=offset)


def affine_psnr(pair: PairMoments, *, data_range: float) -> float:
    """PSNR in dB after `PairMoments.gain_and_offset`, without clipping: never below `psnr`.

    Where the original is a positive multiple of the image plus a constant it is infinite, or, where the arithmetic
    rounds, as large as the rounding allows (some 300 dB for float64, 150 dB for float32 images).
    """
    gain, offset = pair.gain_and_offset
    return psnr(gain * pair.image.pixels + offset, pair.original.pixels, data_range=data_range)


def min_max_ssim(pair: PairMoments, *, data_range: float) -> float:
    """SSIM after stretching the image's own smallest and largest value to 0 and `data_range`; a constant stays.

    What the released scorer of Hatamizadeh 2023 does to every reconstruction (its data range of 256 is not taken
    over). A single bright pixel changes the measure, and an original that does not fill its range is not reached.

    Returns:
        In [−1, 1].
    """
    low, high = float(pair.image.pixels.min()), float(pair.image.pixels.max())
    gain = data_range / (high - low) if high > low else 1.0
    offset = -gain * low if high > low else 0.0
    return pair.ssim(data_range=data_range, gain=gain, offset=offset)


def registered_psnr(
    image: np.ndarray, original: np.ndarray, *, data_range: float, radius: int = REGISTRATION_RADIUS
) -> float:
    """Best PSNR in dB over whole-pixel shifts of the image, on the overlap: never below `psnr`.

    Convolutions hardly say where in the image something is, so an attack can find a picture a little beside its place.
    Both images are cropped to what they share after a shift, so that no pixel is made up at the border.

    Args:
        image: Shape (channels, height, width), more than `radius` pixels high and wide.
        original: Same shape.
        data_range: Largest minus smallest possible value, 1.0 for images in [0, 1].
        radius: Largest shift down, up, right and left, in pixels.

    Raises:
        LeakpipeError: Where a shift would leave no overlap.
    """
    if min(image.shape[1:]) <= radius:
        sides = "×".join(map(str, image.shape[1:]))
        raise LeakpipeError(f"an image of {sides} pixels cannot be shifted by {radius} and still overlap")
    image, original = (np.asarray(pixels, dtype=np.float64) for pixels in (image, original))
    shifts = product(range(-radius, radius + 1), repeat=image.ndim - 1)
    least = min(mse(_cropped(image, shift), _cropped(original, [-step for step in shift])) for shift in shifts)
    return _decibels(least, data_range)


def _decibels(error: float, data_range: float) -> float:
    return 10 * math.log10(data_range**2 / error) if error > 0 else math.inf


def _cropped(image: np.ndarray, shift: Sequence[int]) -> np.ndarray:
    """Without the first rows and columns for a positive shift, without the last for a negative one."""
    kept = [slice(max(step, 0), side + min(step, 0)) for step, side in zip(shift, image.shape[1:], strict=True)]
    return image[(slice(None), *kept)]
