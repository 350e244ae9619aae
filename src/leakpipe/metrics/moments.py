"""Local means, variances and covariance of images: what SSIM, its variants and its map are made of.

Filtering is what costs. It is done when first asked for and kept: once for an image, once more for a pair. SSIM after
any change of brightness and contrast follows from that without another filter.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from leakpipe.errors import LeakpipeError

SSIM_WINDOW = 11  # pixels; σ 1.5 cut at 3.5 σ
BORDER = SSIM_WINDOW // 2  # outer pixels that no whole window is centred on
_TAPS = np.exp(-0.5 * (np.arange(-BORDER, BORDER + 1) / 1.5) ** 2)
_TAPS /= _TAPS.sum()
_BLOCK = 32  # filtering as a product of matrices takes two thirds of the time that scipy.ndimage.correlate1d takes
_BAND = sum(tap * np.eye(_BLOCK + 2 * BORDER, _BLOCK, -place) for place, tap in enumerate(_TAPS))


@dataclass(frozen=True)
class ImageMoments:
    """One image and its local moments, over every window that lies whole inside it.

    Attributes:
        pixels: float64, shape (channels, height, width), of a volume (channels, depth, height, width).
    """

    pixels: np.ndarray

    @cached_property
    def centre(self) -> float:
        """Mean of all pixels."""
        return float(self.pixels.flat[0] - self.centred.flat[0])

    @cached_property
    def centred(self) -> np.ndarray:
        """`pixels` − `centre`, exactly 0 for a constant image.

        Moments are taken around the centre: the small variance of a faint image on a bright ground would else be what
        rounding leaves of two large numbers.
        """
        shifted: np.ndarray = self.pixels - self.pixels.flat[0]
        shifted -= shifted.mean()
        return shifted

    @cached_property
    def mean(self) -> np.ndarray:
        """Local mean of `centred`, shape (channels, height − 10, width − 10)."""
        return _local_mean(self.centred)

    @cached_property
    def variance(self) -> np.ndarray:
        """Local variance (biased: weights sum to 1), same shape as `mean`."""
        variance: np.ndarray = _local_mean(self.centred**2) - self.mean**2
        return variance


@dataclass(frozen=True)
class PairMoments:
    """An image and the original that it is compared with.

    Raises:
        LeakpipeError: Where shapes differ; from its methods, where the window does not fit into the images.
    """

    image: ImageMoments
    original: ImageMoments

    def __post_init__(self) -> None:
        """Check the shapes."""
        require_one_shape(self.image.pixels, self.original.pixels)

    @cached_property
    def covariance(self) -> np.ndarray:
        """Local covariance of the two, shape (channels, height − 10, width − 10)."""
        product = _local_mean(self.image.centred * self.original.centred)
        covariance: np.ndarray = product - self.image.mean * self.original.mean
        return covariance

    @cached_property
    def gain_and_offset(self) -> tuple[float, float]:
        """Gain ≥ 0 and offset with the smallest mean squared error of gain·image + offset to the original.

        One gain and one offset for all channels and pixels: they undo brightness and contrast, not colour. The update
        of a client whose batch normalisation follows its first convolution hardly depends on either, so an attack can
        find the picture and still miss them. The gain is 0, and the offset the original's mean, for a constant image
        and where the best gain would be negative: a negative picture does not count as found.
        """
        variance = float(np.mean(self.image.centred**2))
        covariance = float(np.mean(self.image.centred * self.original.centred))
        gain = max(0.0, covariance / variance) if variance > 0 else 0.0
        return gain, self.original.centre - gain * self.image.centre

    def luminance(self, *, data_range: float, gain: float = 1.0, offset: float = 0.0) -> np.ndarray:
        """SSIM's factor for local means, of gain·image + offset, in every window."""
        mean = gain * self.image.mean + (gain * self.image.centre + offset)
        target = self.original.mean + self.original.centre
        return _similarity(mean * target, mean**2 + target**2, (0.01 * data_range) ** 2)

    def structure(self, *, data_range: float, gain: float = 1.0) -> np.ndarray:
        """SSIM's factor for local contrast and structure, of gain·image, in every window."""
        variances = gain**2 * self.image.variance + self.original.variance
        return _similarity(gain * self.covariance, variances, (0.03 * data_range) ** 2)

    def ssim_map(self, *, data_range: float, gain: float = 1.0, offset: float = 0.0) -> np.ndarray:
        """SSIM of gain·image + offset in every window (Wang 2004, equation 13).

        Returns:
            Shape (channels, height − 10, width − 10), in [−1, 1]; [c, i, j] is of the window centred on pixel
            (i + 5, j + 5).
        """
        local = self.luminance(data_range=data_range, gain=gain, offset=offset)
        local *= self.structure(data_range=data_range, gain=gain)
        return local

    def ssim(self, *, data_range: float, gain: float = 1.0, offset: float = 0.0) -> float:
        """SSIM of gain·image + offset: the mean of `ssim_map`."""
        return float(self.ssim_map(data_range=data_range, gain=gain, offset=offset).mean())


def compare(image: np.ndarray, original: np.ndarray) -> PairMoments:
    """Moments of two images of one shape, (channels, height, width)."""
    return PairMoments(measure(image), measure(original))


def require_one_shape(image: np.ndarray, original: np.ndarray) -> None:
    """Refuse images of different shapes, which numpy might broadcast."""
    if image.shape != original.shape:
        raise LeakpipeError(f"image {image.shape} and original {original.shape} must have one shape")


def measure(image: np.ndarray) -> ImageMoments:
    """Moments of one image of any type of number, shape (channels, height, width)."""
    return ImageMoments(np.asarray(image, dtype=np.float64))


def _similarity(product: np.ndarray, squares: np.ndarray, constant: float) -> np.ndarray:
    """(2·product + constant) / (squares + constant), in place: `product` becomes it, `squares` is used up."""
    product *= 2
    product += constant
    squares += constant
    product /= squares
    return product


def _local_mean(values: np.ndarray) -> np.ndarray:
    """Gaussian-weighted mean of every window that lies whole inside `values`."""
    sides = values.shape[1:]
    if min(sides) < SSIM_WINDOW:
        window, image = ("×".join(map(str, lengths)) for lengths in ([SSIM_WINDOW] * len(sides), sides))
        raise LeakpipeError(f"SSIM compares windows of {window} pixels, which do not fit into an image of {image}")
    for axis in range(-1, -1 - len(sides), -1):
        values = _filter_rows(values.swapaxes(-1, axis)).swapaxes(-1, axis)
    return values


def _filter_rows(values: np.ndarray) -> np.ndarray:
    """Weighted mean of every 11 neighbours along the last axis, of `_BLOCK` places at a time."""
    width = values.shape[-1] - 2 * BORDER
    filtered = np.empty((*values.shape[:-1], width))
    for start in range(0, width, _BLOCK):
        stop = min(start + _BLOCK, width)
        band = _BAND[: stop - start + 2 * BORDER, : stop - start]
        np.matmul(values[..., start : stop + 2 * BORDER], band, out=filtered[..., start:stop])
    return filtered
