"""A gradient held against its target, and a step along both: with the gradient formed, or without.

The weight gradient of a convolution or fully connected layer is g = Σ over positions of δ ⊗ p, with δ the loss's
derivative at an output position and p the patch of the input that it reads. For a target T of the weight's shape and
the layer's product with it, T·p,

    ⟨g, T⟩ = Σ δ · (T·p)        ‖g‖² = Σ over pairs of positions (δ·δ′)(p·p′)

which reads T once and writes nothing of the weight's size. That pays where positions are few.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from leakpipe.attacks.passes.product import Product


def dot(first: Tensor, second: Tensor) -> Tensor:
    """Inner product of two tensors of one shape, a float64 scalar.

    Rows of at most a few thousand values are summed in their own precision (pairwise, as torch sums), their sums in
    float64: a float32 sum over millions is off by more than attacks need.
    """
    product = first * second
    return product.flatten(1).sum(dim=1).sum(dtype=torch.float64) if product.dim() > 1 else product.double().sum()


class Compared(ABC):
    """The gradient g of one tensor and its target T; after `aim`, the direction v = α·T + β·g.

    Attributes:
        inner: ⟨g, T⟩, a float64 scalar; 0 without a target.
        squared: ‖g‖², a float64 scalar.
    """

    inner: Tensor
    squared: Tensor

    @abstractmethod
    def aim(self, along_target: float, along_gradient: float) -> None:
        """Choose v."""


class Formed(Compared):
    """With g as a tensor.

    Attributes:
        direction: v, of the tensor's shape, after `aim`.
    """

    def __init__(self, gradient: Tensor, target: Tensor | None) -> None:
        self.gradient, self.target = gradient, target
        self.squared = dot(gradient, gradient)
        self.inner = torch.zeros_like(self.squared) if target is None else dot(gradient, target)

    def aim(self, along_target: float, along_gradient: float) -> None:
        if self.target is None:
            self.direction = self.gradient * along_gradient
        else:
            self.direction = torch.mul(self.target, along_target).add_(self.gradient, alpha=along_gradient)


class WeightCompared(Compared):
    """Of a layer's weight: also what v does in the layer."""

    @abstractmethod
    def forward(self) -> Tensor:
        """v·p at every position, of the shape of the layer's output."""

    @abstractmethod
    def backward(self) -> Tensor:
        """vᵀ·δ, of the shape of what the layer reads."""


class FormedWeight(Formed, WeightCompared):
    """With g as a tensor, for layers with many positions."""

    def __init__(self, product: Product, features: Tensor, delta: Tensor, target: Tensor | None) -> None:
        self.product, self.features, self.delta = product, features, delta
        super().__init__(product.gradient(features, delta), target)

    def forward(self) -> Tensor:
        return self.product.forward(self.features, self.direction)

    def backward(self) -> Tensor:
        return self.product.backward(self.delta, self.direction, self.features)


class PairedWeight(WeightCompared):
    """From products between positions, for layers with few."""

    def __init__(self, product: Product, features: Tensor, delta: Tensor, target: Tensor | None) -> None:
        self.product, self.features, self.delta, self.target = product, features, delta, target
        self.patches, self.rows = product.patches(features), product.rows(delta)
        patches, rows = self.patches.double(), self.rows.double()
        self.patch_pairs, self.row_pairs = patches @ patches.T, rows @ rows.T
        self.squared = (self.patch_pairs * self.row_pairs).sum()
        self.inner = torch.zeros_like(self.squared)
        if target is not None:
            self.seen = product.forward(features, target)
            self.inner = (delta * self.seen).sum(dtype=torch.float64)

    def aim(self, along_target: float, along_gradient: float) -> None:
        self.along_target, self.along_gradient = along_target, along_gradient

    def forward(self) -> Tensor:
        pairs = (self.patch_pairs * self.along_gradient).to(self.rows.dtype)
        mine = self.product.from_rows(pairs @ self.rows, self.delta)
        return mine if self.target is None else mine.add(self.seen, alpha=self.along_target)

    def backward(self) -> Tensor:
        pairs = (self.row_pairs * self.along_gradient).to(self.patches.dtype)
        mine = self.product.from_patches(pairs @ self.patches, self.features)
        if self.target is None:
            return mine
        return mine.add_(self.product.backward(self.delta, self.target, self.features), alpha=self.along_target)


def compare(product: Product, features: Tensor, delta: Tensor, target: Tensor | None) -> WeightCompared:
    """The cheaper of the two: products of all pairs, forth and back, or g, its comparison and two products with it."""
    positions, rows = delta.numel() // product.outputs, product.outputs
    columns = product.columns
    few = FEW_POSITIONS * positions * (rows + columns) < rows * columns
    return (PairedWeight if few else FormedWeight)(product, features, delta, target)


FEW_POSITIONS = 4  # float64 costs twice float32, and pairs are multiplied out twice
