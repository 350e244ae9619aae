"""Features of images, as a model sees them."""

import torch
from torch import Tensor

from leakpipe.models.head import head_layer
from leakpipe.models.layer_inputs import record_layer_inputs
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
    last = head_layer(state)
    with record_layer_inputs(state.module, [last]) as read:
        forward_frozen(state, images)
    return read[last][0]
