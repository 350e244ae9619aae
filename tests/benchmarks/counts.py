"""Operations and bytes that one attack step needs at least, from the shapes of its layers.

One step of the double backward reads each convolution or fully connected layer seven times as a matrix product of the
same size: forward with the weight; backward with it and for the gradient; in the tangent pass with the weight and with
the direction; in the reverse pass with both. Layers that only images precede need neither the product that moves their
input nor δ of it. Bytes: every such product reads a weight (or its gradient) and its input and writes its output once.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from leakpipe.models.layers import record_layer_inputs
from leakpipe.models.state import ModelState, forward_training


@dataclass(frozen=True)
class Counts:
    """Floating-point operations and bytes of one step."""

    flops: float
    bytes: float

    def times(self, steps: int) -> "Counts":
        """Of as many local steps."""
        return Counts(self.flops * steps, self.bytes * steps)


def count_step(state: ModelState, images: Tensor) -> Counts:
    """Of a network's convolutions and fully connected layers; what else there is costs bytes that are not counted."""
    layers = {name: layer for name, layer in state.module.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    with torch.no_grad(), record_layer_inputs(state.module, layers) as seen:
        forward_training(state, images)
    flops = moved = 0.0
    for place, (name, (features,)) in enumerate(seen.items()):
        layer, weight = layers[name], state.weights[f"{name}.weight"]
        with torch.no_grad():
            meta = type(layer).forward(layer, torch.empty_like(features, device="meta"))
        products = 7 if place else 5
        flops += products * 2 * meta.numel() * weight[0].numel()
        moved += products * (weight.nbytes + features.nbytes + meta.numel() * features.element_size())
    return Counts(flops, moved)
