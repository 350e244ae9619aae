"""The places in an image that leaked."""

import numpy as np

from leakpipe.metrics.moments import BORDER, PairMoments, measure


def leakage_map(
    reconstruction: np.ndarray, original: np.ndarray, prior: np.ndarray, *, data_range: float
) -> np.ndarray:
    """Returns how much more of each place the reconstruction shows than the prior: local SSIM(T, I) − local SSIM(P, I).

    Args:
        reconstruction: Shape (channels, height, width), at least 11×11 pixels.
        original: Same shape.
        prior: Same shape: the image that the attack started from.
        data_range: Largest minus smallest possible value, 1.0 for images in [0, 1].

    Returns:
        float64 of shape (height, width), in [−2, 2], averaged over channels: above 0 where the reconstruction shows
        more than the prior. Each value is of the Gaussian window of 11×11 pixels around it. Around the outer 5 pixels
        no window lies whole inside the image: they are NaN, and the others' mean (`np.nanmean`) is exactly what SSIM
        gained, `ssim` − `ssim_prior`.
    """
    truth = measure(original)
    local = [PairMoments(measure(image), truth).ssim_map(data_range=data_range) for image in (reconstruction, prior)]
    gain = (local[0] - local[1]).mean(axis=0)
    return np.pad(gain, BORDER, constant_values=np.nan)
