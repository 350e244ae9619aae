"""Layers with parameters: convolutions and fully connected layers, and batch normalisation."""

import torch
from torch import Tensor

from leakpipe.attacks.passes.base import Adjoints, Layer
from leakpipe.attacks.passes.compared import Compared, Formed, compare
from leakpipe.attacks.passes.product import Product

Targets = tuple[Tensor | None, Tensor | None]


class ParameterLayer(Layer):
    """A layer whose gradients are compared.

    Attributes:
        compared: By "weight" and "bias", after `backward`.
    """

    compared: dict[str, Compared]


class Weighted(ParameterLayer):
    """A convolution or fully connected layer.

    Args:
        product: Its kind.
        features: What it reads.
        targets: What the gradients of weight and bias are compared with.
        moves: Whether what it reads moves with parameters of earlier layers; else its δ is not asked for.
    """

    def __init__(
        self, product: Product, features: Tensor, weight: Tensor, bias: Tensor | None, targets: Targets, *, moves: bool
    ) -> None:
        self.product, self.features, self.weight, self.has_bias = product, features, weight, bias is not None
        self.targets, self.moves = targets, moves
        self.output = product.forward(features, weight, bias)

    def backward(self, delta: Tensor) -> Adjoints:
        self.weights = compare(self.product, self.features, delta, self.targets[0])
        self.compared = {"weight": self.weights}
        if self.has_bias:
            self.biases = Formed(self.product.rows(delta).sum(dim=0), self.targets[1])
            self.compared["bias"] = self.biases
        return (self.product.backward(delta, self.weight, self.features) if self.moves else None,)

    def tangent(self, *moved: Tensor | None) -> Tensor | None:
        (before,) = moved
        bias = self.biases.direction if self.has_bias else None
        found = self.weights.forward()
        if before is not None:
            found += self.product.forward(before, self.weight)
        if bias is not None:
            found += bias.view(-1, *[1] * (found.dim() - 2))
        return found

    def reverse(self, adjoint: Tensor | None) -> Adjoints:
        found = self.weights.backward()
        if adjoint is not None:
            found = found + self.product.backward(adjoint, self.weight, self.features)
        return (found,)


class Normalized(ParameterLayer):
    """Batch normalisation in training mode, x̂ = (x − μ)/σ and γx̂ + β with σ² = variance + ε.

    Both ways, values go through P/σ with P(q) = q − mean(q) − x̂·mean(x̂q), which torch's backward kernel applies; it
    also returns Σ x̂q and Σ q. The reverse pass differentiates it once more: x̂ in it, and σ.

    Attributes:
        mean: μ by channel.
        variance: By channel, UNBIASED.
    """

    def __init__(self, features: Tensor, weight: Tensor, bias: Tensor, targets: Targets, *, epsilon: float) -> None:
        self.features, self.weight, self.targets, self.epsilon = features, weight, targets, epsilon
        self.values = features.numel() // features.shape[1]
        self.output, self.mean, self.inverse = torch.native_batch_norm(
            features, weight, bias, None, None, True, 0.0, epsilon
        )
        biased = self.inverse.reciprocal().square() - epsilon
        self.variance = biased * (self.values / (self.values - 1))
        self.statistics_adjoint: tuple[Tensor, Tensor] | None = None

    def backward(self, delta: Tensor) -> Adjoints:
        self.delta = delta
        found, gradient, bias_gradient = self._project(delta, self.weight)
        self.weights = Formed(gradient, self.targets[0])
        self.biases = Formed(bias_gradient, self.targets[1])
        self.compared = {"weight": self.weights, "bias": self.biases}
        return (found,)

    def tangent(self, *moved: Tensor | None) -> Tensor | None:
        (self.moved,) = moved
        scale = self.weights.direction * self.inverse
        shift = self.biases.direction - scale * self.mean
        if self.moved is None:
            return torch.addcmul(_channels(shift), self.features, _channels(scale))
        self.turned, self.moved_sum, _ = self._project(self.moved, self.weight)
        return torch.addcmul(self.turned, self.features, _channels(scale)).add_(_channels(shift))

    def reverse(self, adjoint: Tensor | None) -> Adjoints:
        ahead = torch.zeros_like(self.features) if adjoint is None else adjoint * _channels(self.weight)
        along = self.weights.direction
        slope = offset = torch.zeros_like(self.mean)
        if self.moved is not None:
            shrink = self.inverse / self.values
            along = along - self.weight * self.moved_sum * shrink
            ahead.addcmul_(self.moved, _channels(-self.weight * self.weights.gradient * shrink))
            slope = -(self.delta * self.turned).sum(dim=(0, 2, 3)) * shrink * self.inverse
        ahead.addcmul_(self.delta, _channels(along))
        if self.statistics_adjoint is not None:
            mean, variance = self.statistics_adjoint
            slope = slope + variance * (2 / (self.values - 1))
            offset = mean / self.values
        found = self._project(ahead, None)[0]
        return (found.addcmul_(self.features, _channels(slope)).add_(_channels(offset - slope * self.mean)),)

    def _project(self, values: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """weight·P(values)/σ, Σ x̂·values and Σ values."""
        return torch.ops.aten.native_batch_norm_backward(  # type: ignore[no-any-return]
            values, self.features, weight, None, None, self.mean, self.inverse, True, self.epsilon, [True, True, True]
        )


def _channels(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)
