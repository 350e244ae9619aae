"""SSIM over several scales."""

import numpy as np

from leakpipe.metrics.moments import SSIM_WINDOW, PairMoments, compare

EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang 2003, from the finest scale to the coarsest
SMALLEST_SIDE = SSIM_WINDOW * 2 ** (len(EXPONENTS) - 1)  # 176 pixels


def ms_ssim(pair: PairMoments, *, data_range: float) -> float:
    """Multi-scale structural similarity (Wang 2003, equation 7): five scales, each half as large as the one before.

    Structure and contrast count at every scale, luminance at the coarsest. A scale is made of the means of 2×2 pixels
    of the one before; an odd last row or column is dropped. The window is SSIM's (`similarity.ssim`) at all scales.

    Args:
        pair: Image and original.
        data_range: Largest minus smallest possible value, 1.0 for images in [0, 1].

    Returns:
        In [0, 1]; 1 for identical images. Channels are averaged; one in which a scale's mean is negative (it is
        anticorrelated, and a root of that is not real) counts as 0. NaN for volumes, and for images with a side below
        176 pixels: the window does not fit into their fifth scale, and other windows or fewer scales would be another
        measure.
    """
    sides = pair.image.pixels.shape[1:]
    if len(sides) > 2 or min(sides) < SMALLEST_SIDE:
        return float("nan")
    product = np.ones(len(pair.image.pixels))
    for exponent in EXPONENTS[:-1]:
        product *= _mean_of_channels(pair.structure(data_range=data_range)) ** exponent
        pair = compare(_halve(pair.image.pixels), _halve(pair.original.pixels))
    product *= _mean_of_channels(pair.ssim_map(data_range=data_range)) ** EXPONENTS[-1]
    return float(product.mean())


def _mean_of_channels(local: np.ndarray) -> np.ndarray:
    means: np.ndarray = local.mean(axis=(-2, -1)).clip(min=0)
    return means


def _halve(pixels: np.ndarray) -> np.ndarray:
    """Means of 2×2 pixels."""
    height, width = (side // 2 * 2 for side in pixels.shape[-2:])
    rows = pixels[..., 0:height:2, :width] + pixels[..., 1:height:2, :width]
    halved: np.ndarray = (rows[..., 0::2] + rows[..., 1::2]) / 4
    return halved
