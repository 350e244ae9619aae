"""All measures of one attack on one client's images."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from leakpipe.errors import LeakpipeError
from leakpipe.metrics.matching import ASSIGNMENTS
from leakpipe.metrics.moments import ImageMoments, PairMoments, measure
from leakpipe.metrics.rdlv import rdlv
from leakpipe.metrics.similarity import measure_pair


class PerceptualDistance(Protocol):
    """The signature of `leakpipe.metrics.lpips.Lpips`; the name saves importing torch."""

    def __call__(self, image: np.ndarray, original: np.ndarray, *, data_range: float) -> float:
        """Distance of two images of shape (channels, height, width)."""


def score_images(
    reconstructions: np.ndarray,
    originals: np.ndarray,
    priors: np.ndarray,
    *,
    data_range: float = 1.0,
    assignment: str = "optimal",
    lpips: PerceptualDistance | None = None,
) -> list[dict[str, Any]]:
    """Measure what each true image lost to the attack, one row per true image.

    Each original is compared with one reconstruction, chosen by plain SSIM. RDLV is relative to the prior image that
    the threat model granted for the class or position of the original. Local moments of all images are in
    memory at once: 32 bytes per pixel and channel, so 100 MB for 32 gray images of 224×224 pixels.

    Args:
        reconstructions: Shape (candidates, channels, height, width): as many as there are originals, or more.
        originals: Shape (images, channels, height, width).
        priors: Same shape: prior image of each original.
        data_range: Largest minus smallest possible value.
        assignment: Name in `leakpipe.metrics.matching.ASSIGNMENTS`.
        lpips: Distance of an image to its original (`leakpipe.metrics.lpips.Lpips`); without, it is NaN.

    Returns:
        Rows with `position` (of the original), `reconstruction` (index), what
        `leakpipe.metrics.similarity.measure_pair` measures, `lpips`, `ssim_prior`, and `rdlv`, which is relative to it.
    """
    fewer = len(reconstructions) < len(originals)
    if fewer or not reconstructions.shape[1:] == originals.shape[1:] or originals.shape != priors.shape:
        raise LeakpipeError(
            f"reconstructions {reconstructions.shape}, originals {originals.shape} and priors {priors.shape} "
            "must have one shape, but for more reconstructions"
        )
    rebuilt, truth = [measure(image) for image in reconstructions], [measure(image) for image in originals]
    rows = []
    for position, index in enumerate(_assign(rebuilt, truth, data_range=data_range, assignment=assignment)):
        measures = measure_pair(PairMoments(rebuilt[index], truth[position]), data_range=data_range)
        prior_similarity = PairMoments(measure(priors[position]), truth[position]).ssim(data_range=data_range)
        distance = float("nan")
        if lpips is not None:
            distance = lpips(reconstructions[index], originals[position], data_range=data_range)
        rows.append(
            {
                "position": position,
                "reconstruction": index,
                **measures,
                "lpips": distance,
                "ssim_prior": prior_similarity,
                "rdlv": rdlv(measures["ssim"], prior_similarity),
            }
        )
    return rows


def _assign(
    rebuilt: Sequence[ImageMoments], truth: Sequence[ImageMoments], *, data_range: float, assignment: str
) -> list[int]:
    """Index of each original's reconstruction."""
    assign = ASSIGNMENTS[assignment]
    if len(rebuilt) == 1:  # saves the SSIM that is measured anyway
        return [0]
    similarity = [[PairMoments(image, original).ssim(data_range=data_range) for image in rebuilt] for original in truth]
    return [int(index) for index in assign(np.array(similarity))]
