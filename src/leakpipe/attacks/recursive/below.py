"""Weight gradients of the layers below a block, as functions of the image, given the gradients that arrive there."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import batch_norm, conv2d, max_pool2d, pad, relu

from leakpipe.attacks.recursive.layer import Layer
from leakpipe.attacks.recursive.structure import Block, Chain
from leakpipe.models.preprocessing import normalize_input


@dataclass(frozen=True)
class Arrived:
    """The gradients that arrive at one block, from which those of all layers below it follow.

    Attributes:
        block: The block.
        inner: Gradient at the input of its second convolution.
        shortcut: Gradient at the output of its shortcut.
    """

    block: Block
    inner: Tensor
    shortcut: Tensor


class GradientsBelow:
    """Compares weight gradients of the stem, of all blocks below, and of what reads the block's input.

    Batch normalisation is in training mode, so that the backward pass is the client's own.

    Args:
        chain: The network.
        layers: What is known of its units.
        arrived: Where the backward pass starts.
        dtype: Of the arithmetic.
    """

    def __init__(self, chain: Chain, layers: Mapping[str, Layer], arrived: Arrived, dtype: torch.dtype) -> None:
        self.chain, self.layers, self.block = chain, layers, arrived.block
        self.inner, self.shortcut = arrived.inner.to(dtype), arrived.shortcut.to(dtype)
        units = [chain.stem]
        for block in chain.blocks[: chain.blocks.index(arrived.block)]:
            units += [*block.residual, *([block.projection] if block.projection else [])]
        units += [arrived.block.residual[0], *([arrived.block.projection] if arrived.block.projection else [])]
        self.weights = {unit.convolution: layers[unit.convolution].weight.to(dtype).requires_grad_() for unit in units}
        self.targets = {name: layers[name].gradient.to(dtype) for name in self.weights}

    def distance(self, images: Tensor) -> Tensor:
        """Returns the mean over layers of the squared relative distance of weight gradients, a scalar."""
        features = self._input(images)
        first = self.block.residual[0].convolution
        linear = (self.inner * relu(self._apply(first, features))).sum()
        linear = linear + (self.shortcut * self._skip(self.block, features)).sum()
        gradients = torch.autograd.grad(linear, list(self.weights.values()), create_graph=True)
        gaps = [
            (gradient - target).square().sum() / target.square().sum()
            for gradient, target in zip(gradients, self.targets.values(), strict=True)
        ]
        return torch.stack(gaps).mean()

    def _input(self, images: Tensor) -> Tensor:
        features = relu(self._apply(self.chain.stem.convolution, normalize_input(images)))
        if self.chain.pooled:
            features = max_pool2d(features, 3, stride=2, padding=1)
        for block in self.chain.blocks[: self.chain.blocks.index(self.block)]:
            first, second = (unit.convolution for unit in block.residual)
            value = self._apply(second, relu(self._apply(first, features)))
            features = relu(value + self._skip(block, features))
        return features

    def _apply(self, name: str, features: Tensor) -> Tensor:
        layer, weight = self.layers[name], self.weights[name]
        output = conv2d(features, weight, stride=layer.stride, padding=layer.padding)
        scale, shift = layer.scale.to(weight.dtype), layer.shift.to(weight.dtype)
        return batch_norm(output, None, None, scale, shift, True, 0.0, layer.epsilon)

    def _skip(self, block: Block, features: Tensor) -> Tensor:
        if block.projection is not None:
            return self._apply(block.projection.convolution, features)
        kept = features[:, :, :: block.stride, :: block.stride]
        added = self.layers[block.residual[-1].convolution].output_shape[1] - features.shape[1]
        return pad(kept, (0, 0, 0, 0, 0, added))
