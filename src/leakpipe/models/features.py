"""Features of images, as a model computes them."""

import torch
from torch import Tensor

from leakpipe.models.layers import head_layer, record_layer_inputs
from leakpipe.models.state import ModelState, forward_frozen


@torch.no_grad()
def penultimate_features(state: ModelState, images: Tensor) -> Tensor:
    """Returns what the model's head reads, with batch normalisation at the running statistics.

    Args:
        images: Shape (batch, 1 or 3, height, width), values in [0, 1].

    Returns:
        Shape (batch, features).
    """
    head = head_layer(state)
    with record_layer_inputs(state.module, [head]) as read:
        forward_frozen(state, images)
    return read[head][0]
