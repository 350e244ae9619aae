"""Local means, variances and covariance of images: what SSIM, its variants and its map are made of.

Filtering is what costs. An image is filtered once (`measure`), a pair of images once more (`compare`), and SSIM after
any change of brightness and contrast follows from what they found.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.ndimage import correlate1d

from leakpipe.errors import LeakpipeError

SSIM_WINDOW = 11  # pixels; σ 1.5 cut at 3.5 σ
BORDER = SSIM_WINDOW // 2  # outer pixels that no whole window is centred on
_TAPS = np.exp(-0.5 * (np.arange(-BORDER, BORDER + 1) / 1.5) ** 2)
_TAPS /= _TAPS.sum()


@dataclass(frozen=True)
class ImageMoments:
    """One image and its local moments, over every window that lies whole inside it.

    Attributes:
        pixels: The image as float64, shape (channels, height, width).
        centre: Mean of all pixels.
        centred: `pixels` − `centre`. Moments are taken around it: the small variance of a faint image on a bright
            ground would else be what rounding leaves of two large numbers.
        mean: Local mean of `centred`, shape (channels, height − 10, width − 10).
        variance: Local variance (biased: weights sum to 1), same shape.
    """

    pixels: np.ndarray
    centre: float
    centred: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


def measure(image: np.ndarray) -> ImageMoments:
    """Local moments of one image.

    Args:
        image: Shape (channels, height, width), at least 11×11 pixels.

    Raises:
        LeakpipeError: Where the window does not fit into the image.
    """
    height, width = image.shape[-2:]
    if min(height, width) < SSIM_WINDOW:
        raise LeakpipeError(
            f"SSIM compares windows of {SSIM_WINDOW}×{SSIM_WINDOW} pixels, which do not fit into an image of "
            f"{height}×{width}"
        )
    pixels = image.astype(np.float64)
    centred = pixels - pixels.flat[0]  # a constant image has to be exactly 0 after centring
    centred -= centred.mean()
    mean = _local_mean(centred)
    return ImageMoments(pixels, float(pixels.mean()), centred, mean, _local_mean(centred**2) - mean**2)


@dataclass(frozen=True)
class PairMoments:
    """An image and the original that it is held against; what the methods return is described in `similarity`."""

    image: ImageMoments
    original: ImageMoments

    def __post_init__(self) -> None:
        """Refuse what numpy would broadcast."""
        shapes = self.image.pixels.shape, self.original.pixels.shape
        if shapes[0] != shapes[1]:
            raise LeakpipeError(f"image {shapes[0]} and original {shapes[1]} must have one shape")

    @cached_property
    def covariance(self) -> np.ndarray:
        """Local covariance of the two, shape (channels, height − 10, width − 10)."""
        return _local_mean(self.image.centred * self.original.centred) - self.image.mean * self.original.mean

    def ssim_map(self, *, data_range: float, gain: float = 1.0, offset: float = 0.0) -> np.ndarray:
        """SSIM of gain·image + offset in every window (Wang 2004, equation 13).

        Returns:
            Shape (channels, height − 10, width − 10), in [−1, 1]; [c, i, j] is of the window centred on pixel
            (i + 5, j + 5).
        """
        luminance, structure = self.ssim_terms(data_range=data_range, gain=gain, offset=offset)
        return luminance * structure

    def ssim_terms(self, *, data_range: float, gain: float = 1.0, offset: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """The two factors of `ssim_map`: of local means, and of local variances and covariance."""
        c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
        mean = gain * self.image.mean + (gain * self.image.centre + offset)
        target = self.original.mean + self.original.centre
        luminance = (2 * mean * target + c1) / (mean**2 + target**2 + c1)
        spread = gain**2 * self.image.variance + self.original.variance
        return luminance, (2 * gain * self.covariance + c2) / (spread + c2)

    def ssim(self, *, data_range: float, gain: float = 1.0, offset: float = 0.0) -> float:
        """SSIM of gain·image + offset: the mean of `ssim_map`."""
        return float(self.ssim_map(data_range=data_range, gain=gain, offset=offset).mean())


def compare(image: np.ndarray, original: np.ndarray) -> PairMoments:
    """Local moments of two images of one shape, (channels, height, width)."""
    return PairMoments(measure(image), measure(original))


def _local_mean(values: np.ndarray) -> np.ndarray:
    """Gaussian-weighted mean of every window that lies whole inside `values`."""
    rows = correlate1d(values, _TAPS, axis=-1)[..., BORDER:-BORDER]
    filtered: np.ndarray = correlate1d(rows, _TAPS, axis=-2)[..., BORDER:-BORDER, :]
    return filtered
