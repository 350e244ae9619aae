"""A weight's gradient held against its target, and a step along both: with the gradient formed, or without.

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

FEW_POSITIONS = 4  # float64 costs twice float32, and pairs are multiplied out twice


class Compared(ABC):
    """The gradient g of a layer's weight and its target T; after `aim`, the direction v = α·T + β·g.

    Args:
        product: The layer's kind.
        features: What it read.
        delta: The loss's derivative in what it put out.
        target: T; None where the gradient is not compared.

    Attributes:
        inner: ⟨g, T⟩, a float64 scalar; 0 without a target.
        squared: ‖g‖², a float64 scalar.
    """

    inner: Tensor
    squared: Tensor

    def __init__(self, product: Product, features: Tensor, delta: Tensor, target: Tensor | None) -> None:
        self.product, self.features, self.delta, self.target = product, features, delta, target

    @abstractmethod
    def aim(self, along_target: Tensor, along_gradient: Tensor) -> None:
        """Choose v by the scalars α and β, of the gradient's type."""

    @abstractmethod
    def tangent(self, moved: Tensor | None, weight: Tensor) -> Tensor:
        """v·p + weight·ṗ at every position; `moved` is what ṗ are the patches of, None where nothing moves."""

    @abstractmethod
    def reverse(self, adjoint: Tensor | None, weight: Tensor) -> Tensor:
        """vᵀ·δ + weightᵀ·`adjoint`, of the shape of what the layer reads; None is zero."""


class Formed(Compared):
    """With g as a tensor, for layers with many positions."""

    def __init__(self, product: Product, features: Tensor, delta: Tensor, target: Tensor | None) -> None:
        super().__init__(product, features, delta, target)
        self.gradient = product.gradient(features, delta)
        self.squared = _dot(self.gradient, self.gradient)
        self.inner = torch.zeros_like(self.squared) if target is None else _dot(self.gradient, target)

    def aim(self, along_target: Tensor, along_gradient: Tensor) -> None:
        self.direction = self.gradient.mul_(along_gradient)
        if self.target is not None:
            self.direction.addcmul_(self.target, along_target)

    def tangent(self, moved: Tensor | None, weight: Tensor) -> Tensor:
        if moved is None:
            return self.product.forward(self.features, self.direction)
        return self.product.forward_both(((self.features, self.direction), (moved, weight)))

    def reverse(self, adjoint: Tensor | None, weight: Tensor) -> Tensor:
        if adjoint is None:
            return self.product.backward(self.delta, self.direction, self.features)
        return self.product.backward_both(((self.delta, self.direction), (adjoint, weight)), self.features)


class Paired(Compared):
    """From products between positions, for layers with few."""

    def __init__(self, product: Product, features: Tensor, delta: Tensor, target: Tensor | None) -> None:
        super().__init__(product, features, delta, target)
        self.patches, self.rows = product.patches(features), product.rows(delta)
        patches, rows = self.patches.double(), self.rows.double()
        self.patch_pairs, self.row_pairs = patches @ patches.T, rows @ rows.T
        self.squared = (self.patch_pairs * self.row_pairs).sum()
        self.inner = torch.zeros_like(self.squared)
        if target is not None:
            self.seen = product.forward(features, target)
            self.inner = (delta * self.seen).sum(dtype=torch.float64)

    def aim(self, along_target: Tensor, along_gradient: Tensor) -> None:
        self.along_target, self.along_gradient = along_target, along_gradient

    def tangent(self, moved: Tensor | None, weight: Tensor) -> Tensor:
        pairs = (self.patch_pairs * self.along_gradient).to(self.rows.dtype)
        found = self.product.from_rows(pairs @ self.rows, self.delta)
        if self.target is not None:
            found = found.addcmul_(self.seen, self.along_target)
        return found if moved is None else found.add_(self.product.forward(moved, weight))

    def reverse(self, adjoint: Tensor | None, weight: Tensor) -> Tensor:
        pairs = (self.row_pairs * self.along_gradient).to(self.patches.dtype)
        found = self.product.from_patches(pairs @ self.patches, self.features)
        if self.target is not None:
            found.addcmul_(self.product.backward(self.delta, self.target, self.features), self.along_target)
        return found if adjoint is None else found.add_(self.product.backward(adjoint, weight, self.features))


def compare(product: Product, features: Tensor, delta: Tensor, target: Tensor | None) -> Compared:
    """The cheaper of the two: products of all pairs, forth and back, or g, its comparison and two products with it."""
    positions = delta.numel() // product.outputs
    few = FEW_POSITIONS * positions * (product.outputs + product.columns) < product.outputs * product.columns
    return (Paired if few else Formed)(product, features, delta, target)


def _dot(first: Tensor, second: Tensor) -> Tensor:
    """Inner product of two weights, a float64 scalar.

    Rows of a few thousand values are summed in their own precision (pairwise, as torch sums), their sums in float64: a
    float32 sum over millions is off by more than attacks need.
    """
    return (first * second).flatten(1).sum(dim=1).sum(dtype=torch.float64)
