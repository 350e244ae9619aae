"""The network from the image on, with batch normalisation fixed at the statistics that the update gives away."""

from collections.abc import Callable, Collection, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, leaky_relu, max_pool2d, pad, relu

from leakpipe.attacks.recursive.layer import Layer
from leakpipe.attacks.recursive.structure import Block, Chain
from leakpipe.errors import LeakpipeError
from leakpipe.models.state import ModelState, forward_frozen

WINDOW = 3  # height and width of the stem's max-pool
PADDING = -1e4  # in place of −∞ around the map, whose product with a weight of 0 is no number


class FixedNetwork:
    """Maps of images, as a function of a given precision.

    Args:
        chain: The network.
        layers: What is known of its units.
        state: The network itself, for what it makes of images before its first convolution.
        dtype: Of the arithmetic.
    """

    def __init__(self, chain: Chain, layers: Mapping[str, Layer], state: ModelState, dtype: torch.dtype) -> None:
        self.chain, self.layers = chain, layers
        self.prepare: Callable[[Tensor], Tensor] = partial(prepare_images, state, chain.stem.convolution)
        self.kernels = {}
        for name, layer in layers.items():
            factor = layer.scale / layer.deviation
            weight = layer.weight * factor[:, None, None, None]
            self.kernels[name] = weight.to(dtype), (layer.shift - layer.mean * factor).to(dtype)

    def apply(self, name: str, features: Tensor) -> Tensor:
        """Returns what a convolution and its batch normalisation make of `features`."""
        weight, bias = self.kernels[name]
        layer = self.layers[name]
        return conv2d(features, weight, bias, stride=layer.stride, padding=layer.padding)

    def shortcut(self, block: Block, features: Tensor) -> Tensor:
        """Returns what a block's shortcut makes of its input."""
        if block.projection is not None:
            return self.apply(block.projection.convolution, features)
        return keep_pixels(features, block.stride, self.layers[block.residual[-1].convolution].output_shape[1])

    def maps(self, images: Tensor, wanted: Collection[str]) -> dict[str, Tensor]:
        """Returns what the convolutions named `wanted` read; the pass ends with the last of them."""
        return self.run(images, wanted)[0]

    def run(
        self,
        images: Tensor,
        wanted: Collection[str],
        *,
        softness: float = 0.0,
        slope: float = 0.0,
        compared: Collection[str] = (),
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Returns maps, and how far the batch statistics on the way to them are from the update's.

        Args:
            images: Shape (batch, 1 or 3, height, width) in [0, 1].
            wanted: Names of convolutions in blocks; the pass ends with the last of them.
            softness: Of the stem's max-pool (`soft_max_pool`), in units of what its batch normalisation scales to.
            slope: Of every ReLU below 0, from 0 (the network itself) to 1 (a linear one).
            compared: Names of convolutions on the way whose batch statistics are compared.

        Returns:
            By name, what the convolutions read; and a scalar, the mean of d / (1 + d) over the channels of those
            `compared`, with d = (μ − μ*)² / σ*² and d = (σ / σ* − 1)²; 0 of none.
        """
        found: dict[str, Tensor] = {}
        gaps: list[Tensor] = []
        activate = partial(leaky_relu, negative_slope=slope) if slope > 0 else relu

        def apply(name: str, features: Tensor) -> Tensor:
            value = self.apply(name, features)
            if name in compared:
                gaps.append(self._gap(name, value))
            return value

        def result() -> tuple[dict[str, Tensor], Tensor]:
            return found, torch.cat(gaps).mean() if gaps else images.new_zeros(())

        features = apply(self.chain.stem.convolution, self.prepare(images))
        if self.chain.pooled:
            scale = float(self.layers[self.chain.stem.convolution].scale.abs().mean())
            features = soft_max_pool(features, softness * scale)
        features = activate(features)
        for block in self.chain.blocks:
            value = features
            for unit in block.residual:
                if unit.convolution in wanted:
                    found[unit.convolution] = value
                if len(found) == len(set(wanted)):
                    return result()
                value = apply(unit.convolution, value)
                if unit is not block.residual[-1]:
                    value = activate(value)
            features = activate(value + self.shortcut(block, features))
        return result()

    def _gap(self, name: str, value: Tensor) -> Tensor:
        scale, shift = (part.to(value.dtype) for part in (self.layers[name].scale, self.layers[name].shift))
        deviations, means = torch.std_mean(value, dim=(0, 2, 3), correction=0)
        used = scale != 0
        off = torch.cat([(means - shift)[used] / scale[used], deviations[used] / scale[used].abs() - 1]).square()
        return off / (1 + off)


def soft_max_pool(features: Tensor, softness: float) -> Tensor:
    """Returns means over 3×3 windows of stride 2, each value weighted by exp(value / softness): at 0, a max-pool.

    A maximum tells of one pixel in each window alone, so that images in which another one is the largest have no
    gradient towards the right ones. A mean is the maximum where all are alike, unlike the logarithm of a sum.

    Args:
        features: Shape (batch, channels, height, width).
        softness: Difference of values that changes weights by a factor of e; 0 or more.
    """
    if softness <= 0:
        return max_pool2d(features, WINDOW, stride=2, padding=1)
    height, width = ((side + 1) // 2 for side in features.shape[2:])
    padded = pad(features, (1, 1, 1, 1), value=PADDING)
    windows = torch.stack(
        [
            padded[:, :, row : row + 2 * height - 1 : 2, column : column + 2 * width - 1 : 2]
            for row in range(WINDOW)
            for column in range(WINDOW)
        ]
    )
    return (windows * torch.softmax(windows / softness, dim=0)).sum(dim=0)


def keep_pixels(features: Tensor, stride: int, channels: int) -> Tensor:
    """Returns what a shortcut without parameters gives: every `stride`-th pixel, and zeros for further channels."""
    return pad(features[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, channels - features.shape[1]))


def before_last_relu(second: Layer, projection: Layer | None, stride: int, inner: Tensor, features: Tensor) -> Tensor:
    """Returns what a block's last ReLU gets, given both of its maps.

    Args:
        second: The block's last convolution.
        projection: Of its shortcut; None where it has no parameters.
        stride: Of a shortcut without parameters.
        inner: What `second` reads.
        features: The block's input.
    """
    value = second.forward(inner)
    skipped = keep_pixels(features, stride, value.shape[1]) if projection is None else projection.forward(features)
    return value + skipped


class _Prepared(Exception):  # noqa: N818 -- no error
    """Ends a forward pass with what the first convolution reads."""


def prepare_images(state: ModelState, convolution: str, images: Tensor) -> Tensor:
    """Returns what a network's first convolution reads, as a function of images that can be differentiated."""

    def leave(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        raise _Prepared(inputs[0])

    handle = state.module.get_submodule(convolution).register_forward_pre_hook(leave)
    try:
        forward_frozen(state, images)
    except _Prepared as prepared:
        found: Tensor = prepared.args[0]
        return found
    finally:
        handle.remove()
    raise LeakpipeError(f"recursive inversion: the network never calls its layer {convolution}")
