"""How alike two images are.

Images are arrays of shape (channels, height, width) whose values lie in [0, data_range].
"""

from itertools import product

import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from leakpipe.errors import LeakpipeError

SSIM_WINDOW = 11  # pixels; σ 1.5 cut at 3.5 σ
REGISTRATION_RADIUS = 2  # pixels


def mse(image: np.ndarray, original: np.ndarray) -> float:
    """Mean squared error over all channels and pixels, in squared units of the values; 0 for identical images.

    Args:
        image: Any shape.
        original: Same shape.
    """
    return float(np.mean((image.astype(np.float64) - original.astype(np.float64)) ** 2))


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
    height, width = image.shape[-2:]
    if min(height, width) < SSIM_WINDOW:
        raise LeakpipeError(
            f"SSIM compares windows of {SSIM_WINDOW}×{SSIM_WINDOW} pixels, which do not fit into an image of "
            f"{height}×{width}"
        )
    value = structural_similarity(
        image.astype(np.float64),
        original.astype(np.float64),
        data_range=data_range,
        channel_axis=0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    return float(value)


def psnr(image: np.ndarray, original: np.ndarray, *, data_range: float) -> float:
    """Peak signal-to-noise ratio in dB: 10·log10(data_range² / MSE); infinite for identical images.

    Args:
        image: Any shape.
        original: Same shape.
        data_range: Largest minus smallest possible value, 1.0 for images in [0, 1].
    """
    if np.array_equal(image, original):
        return float("inf")
    return float(peak_signal_noise_ratio(original.astype(np.float64), image.astype(np.float64), data_range=data_range))


def fit_gain_and_offset(image: np.ndarray, original: np.ndarray) -> tuple[float, float]:
    """Gain ≥ 0 and offset with the smallest mean squared error of gain·image + offset to `original`.

    One gain and one offset for all channels and pixels: they undo brightness and contrast, not colour. A client whose
    batch normalisation follows its first convolution shares an update that hardly depends on either, so an attack can
    find the picture and still miss them.

    Args:
        image: Any shape.
        original: Same shape.

    Returns:
        Gain and offset. The gain is 0, and the offset the mean of `original`, for a constant image, and where the best
        gain would be negative: a negative picture is not counted as found.
    """
    image, original = image.astype(np.float64), original.astype(np.float64)
    shifted = image - image.flat[0]  # a constant image has to be exactly 0 after centring
    centred = shifted - shifted.mean()
    variance = float(np.mean(centred**2))
    covariance = float(np.mean(centred * (original - original.mean())))
    gain = max(0.0, covariance / variance) if variance > 0 else 0.0
    return gain, float(original.mean() - gain * image.mean())


def affine_ssim(image: np.ndarray, original: np.ndarray, *, data_range: float) -> float:
    """SSIM after `fit_gain_and_offset`.

    The fit is that of least squares, so it shrinks an image that is unlike the original towards the original's mean;
    it need not be the fit with the highest SSIM. What it makes is not clipped to the data range.

    Args:
        image: Shape (channels, height, width), at least 11×11 pixels.
        original: Same shape.
        data_range: Largest minus smallest possible value of the original, 1.0 for images in [0, 1].

    Returns:
        In [−1, 1]; 1 where the original is a positive multiple of the image plus a constant.
    """
    return ssim(_fitted(image, original), original, data_range=data_range)


def affine_psnr(image: np.ndarray, original: np.ndarray, *, data_range: float) -> float:
    """PSNR in dB after `fit_gain_and_offset`, without clipping: never below `psnr`.

    Where the original is a positive multiple of the image plus a constant it is infinite, or, where the arithmetic
    rounds, as large as the rounding allows (some 300 dB for float64, 150 dB for float32 images).

    Args:
        image: Any shape.
        original: Same shape.
        data_range: Largest minus smallest possible value of the original, 1.0 for images in [0, 1].
    """
    return psnr(_fitted(image, original), original, data_range=data_range)


def min_max_ssim(image: np.ndarray, original: np.ndarray, *, data_range: float) -> float:
    """SSIM after stretching the image's own smallest and largest value to 0 and `data_range`.

    What the released scorer of Hatamizadeh 2023 does to every reconstruction (its data range of 256 is not taken
    over). A single bright pixel changes the measure, and an original that does not fill its range is not reached.

    Args:
        image: Shape (channels, height, width), at least 11×11 pixels; a constant image stays as it is.
        original: Same shape, values in [0, data_range].
        data_range: Largest minus smallest possible value of the original, 1.0 for images in [0, 1].

    Returns:
        In [−1, 1].
    """
    image = image.astype(np.float64)
    low, high = image.min(), image.max()
    if high > low:
        image = (image - low) * (data_range / (high - low))
    return ssim(image, original, data_range=data_range)


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
    if min(image.shape[-2:]) <= radius:
        raise LeakpipeError(
            f"an image of {image.shape[-2]}×{image.shape[-1]} pixels cannot be shifted by {radius} and still overlap"
        )
    shifts = product(range(-radius, radius + 1), repeat=2)
    return max(
        psnr(_cropped(image, down, right), _cropped(original, -down, -right), data_range=data_range)
        for down, right in shifts
    )


def _fitted(image: np.ndarray, original: np.ndarray) -> np.ndarray:
    gain, offset = fit_gain_and_offset(image, original)
    return gain * image.astype(np.float64) + offset


def _cropped(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """Without the first rows and columns for a positive shift, without the last for a negative one."""
    height, width = image.shape[-2:]
    return image[..., max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
