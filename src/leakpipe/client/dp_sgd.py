"""DP-SGD (Abadi 2016): the gradient of every image is clipped, and their sum gets noise."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.func import grad, vmap

from leakpipe.errors import LeakpipeError
from leakpipe.params.privacy import DpSgdParams

Gradients = Mapping[str, Tensor]


def private_gradients(
    loss: Callable[[Gradients, Tensor, Tensor], Tensor],
    weights: Gradients,
    images: Tensor,
    labels: Tensor,
    settings: DpSgdParams,
    *,
    generator: torch.Generator | None,
) -> dict[str, Tensor]:
    """Returns (Σᵢ gᵢ·min(1, C/‖gᵢ‖) + N(0, (zC)²)) / B, where gᵢ is the gradient of image i alone.

    Differentiable in `images`, `labels` and `weights`.

    Args:
        loss: `loss(weights, image, label)` of one image; it must not depend on other images.
        images: Shape (B, channels, height, width).
        labels: Shape (B,) or (B, classes).
        settings: C is the `clip_norm`, z the `noise_multiplier`.
        generator: Draws the noise; not needed if z = 0.

    Raises:
        LeakpipeError: z is above 0 and there is no generator. Training without noise would only look private.
    """
    spread = settings.noise_multiplier * settings.clip_norm
    if spread and generator is None:
        raise LeakpipeError("dp-sgd: noise_multiplier: above 0 it needs a generator to draw the noise from")
    each = vmap(grad(loss), in_dims=(None, 0, 0))(weights, images, labels)
    clipped = clip_each(each, clip_norm=settings.clip_norm)
    summed = {name: values.sum(dim=0) for name, values in clipped.items()}
    if spread:

        def noise(like: Tensor) -> Tensor:
            drawn = torch.randn(like.shape, generator=generator, dtype=like.dtype, device="cpu")
            return spread * drawn.to(like.device)

        summed = {name: value + noise(value) for name, value in summed.items()}
    return {name: value / len(images) for name, value in summed.items()}


def clip_each(gradients: Gradients, *, clip_norm: float) -> dict[str, Tensor]:
    """Scales the gradient of each image down to an L2 norm of at most `clip_norm`.

    Args:
        gradients: Of shape (images, …) each. The norm of an image is over all of them together, summed in float64.
    """
    flat = [value.reshape(len(value), -1).double() for value in gradients.values()]
    squares = torch.stack([values.square().sum(dim=1) for values in flat]).sum(dim=0)
    # Clamped before the root, whose slope at 0 is infinite: zero gradients stay differentiable.
    factors = clip_norm / squares.clamp(min=clip_norm**2).sqrt()
    return {
        name: value * factors.to(value.dtype).reshape(-1, *[1] * (value.ndim - 1)) for name, value in gradients.items()
    }
