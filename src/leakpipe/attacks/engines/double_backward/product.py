"""Multiplying with a weight, forth and back, for each kind of layer that has one.

Networks side by side are one whose channels (or features) are those of the first, then of the second, …: weights of all
of them follow each other in the first dimension of one tensor, and their convolutions are one in groups.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, fold, linear, unfold

Pairs = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]
FEW_COLUMNS = 160  # 3 channels of 7 × 7 pixels and less


class Product(ABC):
    """Multiplication of a layer's input, or of its output, with a tensor of its weight's shape.

    Attributes:
        outputs: Values of the output at one position, in one of the networks.
        columns: Values of the input that one position reads, likewise.
        networks: How many are side by side; `patches`, `rows` and their inverses are of one only.
    """

    outputs: int
    columns: int
    networks: int

    @abstractmethod
    def forward(self, features: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
        """The layer's output with `matrix` as its weight."""

    @abstractmethod
    def backward(self, delta: Tensor, matrix: Tensor, features: Tensor) -> Tensor:
        """The adjoint of `forward` in the features, of which only the shape is used."""

    def forward_both(self, pairs: Pairs) -> Tensor:
        """The sum of `forward` of two pairs of features and matrix."""
        (first, matrix), (second, other) = pairs
        return self.forward(first, matrix).add_(self.forward(second, other))

    def backward_both(self, pairs: Pairs, features: Tensor) -> Tensor:
        """The sum of `backward` of two pairs of outputs and matrix."""
        (first, matrix), (second, other) = pairs
        return self.backward(first, matrix, features).add_(self.backward(second, other, features))

    @abstractmethod
    def gradient(self, features: Tensor, delta: Tensor) -> Tensor:
        """The adjoint of `forward` in the matrix."""

    @abstractmethod
    def patches(self, features: Tensor) -> Tensor:
        """The values that each position reads, shape (positions, columns)."""

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

    def __init__(self, layer: nn.Conv2d, networks: int) -> None:
        assert not isinstance(layer.padding, str)  # `program` refuses others
        self.networks = networks
        self.size: tuple[int, ...] = layer.kernel_size
        self.stride: tuple[int, ...] = layer.stride
        self.padding: tuple[int, ...] = layer.padding
        self.outputs, self.columns = layer.out_channels, layer.weight[0].numel()

    def forward(self, features: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
        return conv2d(features, matrix, bias, self.stride, self.padding, groups=self.networks)

    def forward_both(self, pairs: Pairs) -> Tensor:
        if self.networks > 1:
            return super().forward_both(pairs)
        (first, matrix), (second, other) = pairs
        return self.forward(torch.cat([first, second], dim=1), torch.cat([matrix, other], dim=1))

    def backward(self, delta: Tensor, matrix: Tensor, features: Tensor) -> Tensor:
        if self.columns < FEW_COLUMNS:  # many positions of a few values, as of images: torch is slow at these
            matrices = matrix.flatten(1).unflatten(0, (self.networks, -1)).transpose(1, 2)
            columns = matrices @ delta.flatten(2).unflatten(1, (self.networks, -1))
            size, kernel = features.shape[2:], self.size
            images = fold(columns.flatten(0, 1), size, kernel, padding=self.padding, stride=self.stride)
            return images.view(features.shape)
        left = [
            (read + 2 * padding - size) % stride
            for read, padding, size, stride in zip(
                features.shape[2:], self.padding, self.size, self.stride, strict=True
            )
        ]
        return conv_transpose2d(delta, matrix, None, self.stride, self.padding, left, self.networks)

    def backward_both(self, pairs: Pairs, features: Tensor) -> Tensor:
        if self.networks > 1:
            return super().backward_both(pairs, features)
        (first, matrix), (second, other) = pairs
        return self.backward(torch.cat([first, second], dim=1), torch.cat([matrix, other]), features)

    def gradient(self, features: Tensor, delta: Tensor) -> Tensor:
        weight = features.new_empty(self.networks * self.outputs, features.shape[1] // self.networks, *self.size)
        like = weight.contiguous(memory_format=torch.channels_last)
        wanted = [False, True, False]
        return torch.ops.aten.convolution_backward(  # type: ignore[no-any-return]
            delta, features, like, None, self.stride, self.padding, [1, 1], False, [0, 0], self.networks, wanted
        )[1]

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

    def __init__(self, layer: nn.Linear, networks: int) -> None:
        self.outputs, self.columns, self.networks = layer.out_features, layer.in_features, networks

    def forward(self, features: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
        if self.networks == 1:
            return linear(features, matrix, bias)
        found = _joined(_apart(features, self.networks) @ self._matrices(matrix).transpose(1, 2))
        return found if bias is None else found + bias

    def backward(self, delta: Tensor, matrix: Tensor, features: Tensor) -> Tensor:  # noqa: ARG002 its shape follows
        if self.networks == 1:
            return delta @ matrix
        return _joined(_apart(delta, self.networks) @ self._matrices(matrix))

    def gradient(self, features: Tensor, delta: Tensor) -> Tensor:
        if self.networks == 1:
            return delta.T @ features
        return (_apart(delta, self.networks).transpose(1, 2) @ _apart(features, self.networks)).flatten(0, 1)

    def patches(self, features: Tensor) -> Tensor:
        return features

    def from_patches(self, patches: Tensor, like: Tensor) -> Tensor:  # noqa: ARG002 its shape follows
        return patches

    def rows(self, outputs: Tensor) -> Tensor:
        return outputs

    def from_rows(self, rows: Tensor, like: Tensor) -> Tensor:  # noqa: ARG002 its shape follows
        return rows

    def _matrices(self, matrix: Tensor) -> Tensor:
        return matrix.view(self.networks, self.outputs, self.columns)


def _apart(values: Tensor, networks: int) -> Tensor:
    """(images, networks · features) as (networks, images, features)."""
    return values.view(len(values), networks, -1).transpose(0, 1)


def _joined(values: Tensor) -> Tensor:
    """The inverse of `_apart`."""
    return values.transpose(0, 1).flatten(1)
