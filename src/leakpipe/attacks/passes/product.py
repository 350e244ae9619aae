"""Multiplying with a weight, forth and back, for each kind of layer that has one."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, fold, linear, unfold

_convolution_backward = torch.ops.aten.convolution_backward


class Product(ABC):
    """What a layer does with a tensor of its weight's shape.

    Attributes:
        outputs: Values that it puts out at one position.
        columns: Values that it reads at one position.
    """

    outputs: int
    columns: int

    @abstractmethod
    def forward(self, features: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
        """The layer's output with `matrix` as its weight."""

    @abstractmethod
    def backward(self, delta: Tensor, matrix: Tensor, features: Tensor) -> Tensor:
        """The adjoint of `forward` in the features, of which only the shape is used."""

    @abstractmethod
    def gradient(self, features: Tensor, delta: Tensor) -> Tensor:
        """The adjoint of `forward` in the matrix."""

    @abstractmethod
    def patches(self, features: Tensor) -> Tensor:
        """What each position reads, shape (positions, columns)."""

    @abstractmethod
    def from_patches(self, patches: Tensor, like: Tensor) -> Tensor:
        """The adjoint of `patches`, of the shape of the features `like`."""

    @abstractmethod
    def rows(self, outputs: Tensor) -> Tensor:
        """Outputs as (positions, outputs)."""

    @abstractmethod
    def from_rows(self, rows: Tensor, like: Tensor) -> Tensor:
        """The inverse of `rows`, of the shape of `like`."""


class ConvolutionProduct(Product):
    """Of a convolution without groups and dilation, with zeros around."""

    def __init__(self, layer: nn.Conv2d) -> None:
        self.size, self.stride, self.padding = layer.kernel_size, list(layer.stride), list(layer.padding)
        self.outputs, self.columns = layer.out_channels, layer.weight[0].numel()

    def forward(self, features: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
        return conv2d(features, matrix, bias, self.stride, self.padding)

    def backward(self, delta: Tensor, matrix: Tensor, features: Tensor) -> Tensor:
        return self._adjoint(delta, features, matrix, 0)

    def gradient(self, features: Tensor, delta: Tensor) -> Tensor:
        weight = features.new_empty(self.outputs, features.shape[1], *self.size)
        return self._adjoint(delta, features, weight.contiguous(memory_format=torch.channels_last), 1)

    def _adjoint(self, delta: Tensor, features: Tensor, matrix: Tensor, which: int) -> Tensor:
        wanted = [which == 0, which == 1, False]
        found = _convolution_backward(
            delta, features, matrix, None, self.stride, self.padding, [1, 1], False, [0, 0], 1, wanted
        )
        return found[which]  # type: ignore[no-any-return]

    def patches(self, features: Tensor) -> Tensor:
        found = unfold(features, self.size, padding=self.padding, stride=self.stride)
        return found.transpose(1, 2).flatten(0, 1)

    def from_patches(self, patches: Tensor, like: Tensor) -> Tensor:
        columns = patches.view(len(like), -1, self.columns).transpose(1, 2)
        return fold(columns, like.shape[2:], self.size, padding=self.padding, stride=self.stride)

    def rows(self, outputs: Tensor) -> Tensor:
        return outputs.permute(0, 2, 3, 1).reshape(-1, self.outputs)

    def from_rows(self, rows: Tensor, like: Tensor) -> Tensor:
        images, _, height, width = like.shape
        return rows.view(images, height, width, self.outputs).permute(0, 3, 1, 2)


class MatrixProduct(Product):
    """Of a fully connected layer."""

    def __init__(self, layer: nn.Linear) -> None:
        self.outputs, self.columns = layer.out_features, layer.in_features

    def forward(self, features: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
        return linear(features, matrix, bias)

    def backward(self, delta: Tensor, matrix: Tensor, features: Tensor) -> Tensor:  # noqa: ARG002 its shape follows
        return delta @ matrix

    def gradient(self, features: Tensor, delta: Tensor) -> Tensor:
        return delta.T @ features

    def patches(self, features: Tensor) -> Tensor:
        return features

    def from_patches(self, patches: Tensor, like: Tensor) -> Tensor:  # noqa: ARG002 its shape follows
        return patches

    def rows(self, outputs: Tensor) -> Tensor:
        return outputs

    def from_rows(self, rows: Tensor, like: Tensor) -> Tensor:  # noqa: ARG002 its shape follows
        return rows
