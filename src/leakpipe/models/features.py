"""What a model sees in an image before it decides on a class."""

import torch
from torch import Tensor, nn

from leakpipe.models.state import ModelState, forward_frozen


@torch.no_grad()
def penultimate_features(state: ModelState, images: Tensor) -> Tensor:
    """What the model's last linear layer reads, with batch normalisation at the running statistics.

    Args:
        state: A model that ends in a linear layer, as all registered ones do.
        images: Shape (batch, 1 or 3, height, width), values in [0, 1].

    Returns:
        Shape (batch, features).
    """
    *_, last = (layer for layer in state.module.modules() if isinstance(layer, nn.Linear))
    read: list[Tensor] = []
    handle = last.register_forward_pre_hook(lambda _layer, inputs: read.append(inputs[0]))
    try:
        forward_frozen(state, images)
    finally:
        handle.remove()
    return read[0]
