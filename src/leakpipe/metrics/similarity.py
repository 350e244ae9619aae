"""How alike two images are."""

import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity


def ssim(image: np.ndarray, original: np.ndarray, *, data_range: float) -> float:
    """Structural similarity (Wang 2004) with its Gaussian window: σ 1.5, 11×11 pixels, biased covariance.

    Args:
        image: Shape (channels, height, width), at least 11×11 pixels.
        original: Same shape.
        data_range: Largest minus smallest possible value, 1.0 for images in [0, 1].

    Returns:
        In [−1, 1]; 1 for identical images. Channels are averaged.
    """
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
