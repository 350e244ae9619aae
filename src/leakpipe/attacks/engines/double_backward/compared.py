"""A weight's gradient compared with its target, and a step along both: with the gradient formed, or without.

The weight gradient of a convolution or fully connected layer is g = Σ over positions of δ ⊗ p, with δ the loss's
derivative at an output position and p the patch of the input that it reads. For a target T of the weight's shape and
the layer's product with it, T·p,

    ⟨g, T⟩ = Σ δ · (T·p)        ‖g‖² = Σ over pairs of positions (δ·δ′)(p·p′)

which reads T once and writes nothing of the weight's size. That pays where positions are few. ‖g − T‖² is only
computed with the gradient formed: ‖g‖² − 2⟨g, T⟩ + ‖T‖² would leave only rounding where g is near T.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from leakpipe.attacks.engines.double_backward.product import Product

FEW_POSITIONS = 4  # float64 costs twice float32, and pairs are multiplied out twice


class Compared(ABC):
    """The gradient g of a layer's weight and its target T; after `aim`, the direction v = α·T + β·g.

    Args:
        product: The layer's kind.
        features: The layer's input.
        delta: The loss's derivative in the layer's output.
        target: T; None where the gradient is not compared.
    """

    def __init__(self, product: Product, features: Tensor, delta: Tensor, target: Tensor | None) -> None:
        self.product, self.features, self.delta, self.target = product, features, delta, target

    @abstractmethod
    def products(self, *, differs: bool) -> tuple[Tensor, ...]:
        """⟨g, T⟩ (0 without a target), ‖g‖² and perhaps ‖g − T‖², each float64 of shape (networks,); before `aim`."""

    @abstractmethod
    def aim(self, along_target: Tensor, along_gradient: Tensor) -> None:
        """Choose v by α and β of each network, of shape (networks,)."""

    @abstractmethod
    def tangent(self, moved: Tensor | None, weight: Tensor) -> Tensor:
        """v·p + weight·ṗ at every position; ṗ are the patches of `moved`, which is None where nothing moves."""

    @abstractmethod
    def reverse(self, adjoint: Tensor | None, weight: Tensor) -> Tensor:
        """vᵀ·δ + weightᵀ·`adjoint`, of the shape of the layer's input; None is zero."""


class Formed(Compared):
    """With g as a tensor, for layers with many positions."""

    def __init__(self, product: Product, features: Tensor, delta: Tensor, target: Tensor | None) -> None:
        super().__init__(product, features, delta, target)
        self.gradient = product.gradient(features, delta)

    def products(self, *, differs: bool) -> tuple[Tensor, ...]:
        return formed_products(self.gradient.unflatten(0, (self.product.networks, -1)), self.target, differs=differs)

    def aim(self, along_target: Tensor, along_gradient: Tensor) -> None:
        apart = self.gradient.unflatten(0, (self.product.networks, -1))
        each = (-1, *[1] * (apart.dim() - 1))
        apart.mul_(along_gradient.view(each))
        if self.target is not None:
            apart.addcmul_(self.target, along_target.view(each))
        self.direction = self.gradient

    def tangent(self, moved: Tensor | None, weight: Tensor) -> Tensor:
        if moved is None:
            return self.product.forward(self.features, self.direction)
        return self.product.forward_both(((self.features, self.direction), (moved, weight)))

    def reverse(self, adjoint: Tensor | None, weight: Tensor) -> Tensor:
        if adjoint is None:
            return self.product.backward(self.delta, self.direction, self.features)
        return self.product.backward_both(((self.delta, self.direction), (adjoint, weight)), self.features)


class Paired(Compared):
    """From products between positions, for layers with few; of one network only."""

    def __init__(self, product: Product, features: Tensor, delta: Tensor, target: Tensor | None) -> None:
        super().__init__(product, features, delta, target)
        self.patches, self.rows = product.patches(features), product.rows(delta)
        patches, rows = self.patches.double(), self.rows.double()
        self.patch_pairs, self.row_pairs = patches @ patches.T, rows @ rows.T
        self.seen = None if target is None else product.forward(features, target)

    def products(self, *, differs: bool) -> tuple[Tensor, ...]:
        assert not differs  # `compare` forms the gradient then
        squared = (self.patch_pairs * self.row_pairs).sum().view(1)
        if self.seen is None:
            return torch.zeros_like(squared), squared
        return (self.delta * self.seen).sum(dtype=torch.float64).view(1), squared

    def aim(self, along_target: Tensor, along_gradient: Tensor) -> None:
        self.along_target, self.along_gradient = along_target, along_gradient

    def tangent(self, moved: Tensor | None, weight: Tensor) -> Tensor:
        pairs = (self.patch_pairs * self.along_gradient).to(self.rows.dtype)
        found = self.product.from_rows(pairs @ self.rows, self.delta)
        if self.seen is not None:
            found = found.addcmul_(self.seen, self.along_target)
        return found if moved is None else found.add_(self.product.forward(moved, weight))

    def reverse(self, adjoint: Tensor | None, weight: Tensor) -> Tensor:
        pairs = (self.row_pairs * self.along_gradient).to(self.patches.dtype)
        found = self.product.from_patches(pairs @ self.patches, self.features)
        if self.target is not None:
            found.addcmul_(self.product.backward(self.delta, self.target, self.features), self.along_target)
        return found if adjoint is None else found.add_(self.product.backward(adjoint, weight, self.features))


def compare(product: Product, features: Tensor, delta: Tensor, target: Tensor | None, *, formed: bool) -> Compared:
    """The cheaper of the two: products of all pairs, forth and back, or g, its comparison and two products with it.

    Args:
        formed: Whether the gradient is needed as a tensor.
    """
    positions = delta.numel() // product.outputs
    forth_and_back = FEW_POSITIONS * positions * (product.outputs + product.columns)
    few = product.networks == 1 and forth_and_back < product.outputs * product.columns
    return (Paired if few and not formed else Formed)(product, features, delta, target)


def formed_products(gradient: Tensor, target: Tensor | None, *, differs: bool) -> tuple[Tensor, ...]:
    """`Compared.products` of a gradient of shape (networks, outputs, …)."""
    squared = _dots(gradient, gradient)
    inner = torch.zeros_like(squared) if target is None else _dots(gradient, target)
    if not differs:
        return inner, squared
    difference = gradient if target is None else gradient - target
    return inner, squared, _dots(difference, difference)


def _dots(mine: Tensor, theirs: Tensor) -> Tensor:
    """Inner products of weights of networks side by side, float64 of shape (networks,).

    What one output adds is summed in its own precision, outputs in float64: a float32 sum over millions is off by
    more than attacks need.

    Args:
        mine: Shape (networks, outputs, …).
        theirs: The same, or of one network that all are compared with.
    """
    each = (mine * theirs).sum(dim=tuple(range(2, mine.dim())))
    return each.sum(dim=1, dtype=torch.float64)
