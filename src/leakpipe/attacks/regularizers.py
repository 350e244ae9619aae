"""Terms that say what candidates should look like besides explaining the update."""

from collections.abc import Mapping

import torch
from torch import Tensor

from leakpipe.models.batchnorm import BatchStatistics


def batch_statistics_distance(
    candidate: Mapping[str, BatchStatistics], target: Mapping[str, BatchStatistics]
) -> Tensor:
    """Squared distance of means and of standard deviations, each over the target's variance.

    Per layer ((μ − μ*)² + (σ − σ*)²) / σ*², averaged over channels, then over layers (after the paper's
    α_BN term, which sums unscaled norms). Dividing by the target's variance makes layers of different
    scale comparable. Channels whose target variance is not positive (noise did it) tell nothing and
    are left out.

    Args:
        candidate: By layer name; may require a gradient.
        target: Same layers.

    Returns:
        A scalar, 0 where all channels of all layers agree or none can be used.
    """
    layers = []
    for name, wanted in target.items():
        usable = wanted.variance > 0
        if not usable.any():
            continue
        variance = wanted.variance[usable]
        mean_gap = candidate[name].mean[usable] - wanted.mean[usable]
        deviation_gap = candidate[name].variance[usable].clamp_min(1e-12).sqrt() - variance.sqrt()
        layers.append(((mean_gap.square() + deviation_gap.square()) / variance).mean())
    if not layers:
        return torch.zeros(())
    return torch.stack(layers).mean()


def total_variation(images: Tensor) -> Tensor:
    """Anisotropic total variation: mean absolute difference of vertical plus of horizontal neighbours.

    Args:
        images: Shape (images, channels, height, width).

    Returns:
        A scalar; 0 for constant images, in the units of the images.
    """
    vertical = (images[..., 1:, :] - images[..., :-1, :]).abs().mean()
    horizontal = (images[..., :, 1:] - images[..., :, :-1]).abs().mean()
    return vertical + horizontal
