"""DP-SGD (Abadi 2016): gradients of single images, clipped, summed, with noise."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad, vmap

from leakpipe.errors import LeakpipeError
from leakpipe.params.privacy import DpSgdParams

Gradients = Mapping[str, Tensor]


@dataclass(frozen=True)
class DpSgd:
    """How one local step is made private.

    Attributes:
        clip_norm: C, the largest L2 norm of one image's gradient, over all weights together.
        noise_multiplier: Standard deviation of the noise on the sum of gradients, in units of C.
    """

    clip_norm: float
    noise_multiplier: float

    @classmethod
    def of(cls, params: DpSgdParams) -> "DpSgd":
        """As the parameters say."""
        return cls(params.clip_norm, params.noise_multiplier)


def private_gradients(
    loss: Callable[[Gradients, Tensor, Tensor], Tensor],
    weights: Gradients,
    images: Tensor,
    labels: Tensor,
    settings: DpSgd,
    *,
    generator: torch.Generator | None,
) -> dict[str, Tensor]:
    """(Σᵢ gᵢ·min(1, C/‖gᵢ‖) + N(0, (zC)²)) / B, gᵢ being the gradient of image i alone.

    Can be differentiated with respect to `images`, `labels` and `weights`.

    Args:
        loss: `loss(weights, image, label)` of one image; it must not depend on other images.
        images: Shape (B, channels, height, width).
        labels: Shape (B, …).
        generator: Draws the noise. Without noise (z = 0) it is not read.

    Raises:
        LeakpipeError: There is to be noise and no generator: nothing may look private that is not.
    """
    spread = settings.noise_multiplier * settings.clip_norm
    if spread and generator is None:
        raise LeakpipeError("DP-SGD with noise needs a generator to draw it from")
    each = vmap(grad(loss), in_dims=(None, 0, 0))(weights, images, labels)
    clipped = clip_each(each, clip_norm=settings.clip_norm)
    summed = {name: values.sum(dim=0) for name, values in clipped.items()}
    if spread:
        summed = {
            name: value + spread * torch.randn(value.shape, generator=generator, dtype=value.dtype)
            for name, value in summed.items()
        }
    return {name: value / len(images) for name, value in summed.items()}


def clip_each(gradients: Gradients, *, clip_norm: float) -> dict[str, Tensor]:
    """Scale the gradient of each image down to an L2 norm of at most `clip_norm`.

    Args:
        gradients: Shape (images, …) each; an image's norm is over all of them together, summed in float64.
    """
    flat = [value.reshape(len(value), -1).double() for value in gradients.values()]
    squares = torch.stack([values.square().sum(dim=1) for values in flat]).sum(dim=0)
    # Clamped before the root, whose slope at 0 is infinite: zero gradients stay differentiable.
    factors = clip_norm / squares.clamp(min=clip_norm**2).sqrt()
    return {
        name: value * factors.to(value.dtype).reshape(-1, *[1] * (value.ndim - 1)) for name, value in gradients.items()
    }
