"""All measures of one attack on one client's images."""

from typing import Any

import numpy as np

from leakpipe.errors import LeakpipeError
from leakpipe.metrics.matching import match_to_originals
from leakpipe.metrics.rdlv import rdlv
from leakpipe.metrics.similarity import affine_psnr, affine_ssim, min_max_ssim, mse, psnr, registered_psnr, ssim


def score_images(
    reconstructions: np.ndarray, originals: np.ndarray, priors: np.ndarray, *, data_range: float = 1.0
) -> list[dict[str, Any]]:
    """Measure what each true image lost to the attack, one row per true image.

    Each original gets its own reconstruction (`match_to_originals` on SSIM). The prior that an image's
    RDLV is relative to is the one its own class or position granted.

    Args:
        reconstructions: Shape (images, channels, height, width).
        originals: Same shape.
        priors: Same shape: prior image of each original.
        data_range: Largest minus smallest possible value.

    Returns:
        Rows with `position` (of the original), `reconstruction` (index), the measures of
        `leakpipe.metrics.similarity` (`ssim`, `ssim_affine`, `ssim_min_max`; `psnr`, `psnr_affine` and
        `psnr_registered` in dB; `mse`), `ssim_prior`, and `rdlv`, which is relative to it.
    """
    if not reconstructions.shape == originals.shape == priors.shape:
        raise LeakpipeError(
            f"reconstructions {reconstructions.shape}, originals {originals.shape} and priors {priors.shape} "
            "must have one shape"
        )
    similarity = np.array(
        [[ssim(rebuilt, original, data_range=data_range) for rebuilt in reconstructions] for original in originals]
    )
    rows = []
    for position, index in enumerate(match_to_originals(similarity)):
        rebuilt, original = reconstructions[index], originals[position]
        prior_similarity = ssim(priors[position], original, data_range=data_range)
        rows.append(
            {
                "position": position,
                "reconstruction": int(index),
                "ssim": float(similarity[position, index]),
                "ssim_prior": prior_similarity,
                "ssim_affine": affine_ssim(rebuilt, original, data_range=data_range),
                "ssim_min_max": min_max_ssim(rebuilt, original, data_range=data_range),
                "psnr": psnr(rebuilt, original, data_range=data_range),
                "psnr_affine": affine_psnr(rebuilt, original, data_range=data_range),
                "psnr_registered": registered_psnr(rebuilt, original, data_range=data_range),
                "mse": mse(rebuilt, original),
                "rdlv": rdlv(float(similarity[position, index]), prior_similarity),
            }
        )
    return rows
