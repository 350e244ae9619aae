"""Layers with parameters: convolutions and fully connected layers, and batch normalisation."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from leakpipe.attacks.engines.double_backward.base import Adjoints, Layer
from leakpipe.attacks.engines.double_backward.compared import Compared, compare
from leakpipe.attacks.engines.double_backward.product import Product
from leakpipe.models.batchnorm import values_per_channel


class ParameterLayer(Layer):
    """A layer whose gradients are compared.

    Attributes:
        weight_compared: The gradient of a weight matrix, after `backward`; None where there is none.
        vector_gradients: Those of its other parameters (biases, and what batch normalisation has), after `backward`.
        vector_directions: The directions along which those move, set before `tangent`.
        weight_adjoint: Derivative of Ṡ in the weight matrix, after `differentiate_weights`.
        vector_adjoints: In the other parameters, likewise.
    """

    weight_compared: Compared | None = None
    vector_gradients: Sequence[Tensor] = ()
    vector_directions: Sequence[Tensor] = ()
    weight_adjoint: Tensor | None = None
    vector_adjoints: Sequence[Tensor] = ()

    @abstractmethod
    def differentiate_weights(self, adjoint: Tensor | None) -> None:
        """Finds the derivatives of Ṡ in the parameters, after `reverse`.

        Args:
            adjoint: The one that `reverse` got.
        """


class Weighted(ParameterLayer):
    """A convolution or fully connected layer; its bias is the only vector.

    Args:
        product: Its kind.
        features: Its input.
        target: Target of its weight's gradient.
        formed: Whether the gradient is needed as a tensor.
        moves: Whether its input moves with parameters of earlier layers; else its δ is not needed.
    """

    weight_compared: Compared

    def __init__(
        self,
        product: Product,
        features: Tensor,
        *,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor | None,
        formed: bool,
        moves: bool,
    ) -> None:
        self.product, self.features, self.weight, self.has_bias = product, features, weight, bias is not None
        self.target, self.formed, self.moves = target, formed, moves
        self.output = product.forward(features, weight, bias)

    def backward(self, delta: Tensor) -> Adjoints:
        self.weight_compared = compare(self.product, self.features, delta, self.target, formed=self.formed)
        if self.has_bias:
            self.vector_gradients = (_total(delta),)
        return (self.product.backward(delta, self.weight, self.features) if self.moves else None,)

    def tangent(self, *moved: Tensor | None) -> Tensor | None:
        (self.moved,) = moved
        found = self.weight_compared.tangent(self.moved, self.weight)
        for direction in self.vector_directions:
            found += direction.view(-1, *[1] * (found.dim() - 2))
        return found

    def reverse(self, adjoint: Tensor | None) -> Adjoints:
        return (self.weight_compared.reverse(adjoint, self.weight),)

    def differentiate_weights(self, adjoint: Tensor | None) -> None:
        parts = [
            self.product.gradient(read, along)
            for read, along in ((self.features, adjoint), (self.moved, self.weight_compared.delta))
            if read is not None and along is not None
        ]
        self.weight_adjoint = sum(parts, torch.zeros_like(self.weight))
        if self.has_bias:
            nothing = torch.zeros_like(self.vector_gradients[0])
            self.vector_adjoints = (nothing if adjoint is None else _total(adjoint),)


class Normalized(ParameterLayer):
    """Batch normalisation in training mode, x̂ = (x − μ)/σ and γx̂ + β with σ² = variance + ε.

    Both ways, values go through P/σ with P(q) = q − mean(q) − x̂·mean(x̂q), which torch's backward kernel applies; it
    also returns Σ x̂q and Σ q. The reverse pass differentiates it once more: x̂ in it, and σ.

    Attributes:
        mean: μ by channel.
        variance: By channel, UNBIASED.
    """

    def __init__(self, features: Tensor, *, weight: Tensor, bias: Tensor, epsilon: float) -> None:
        self.features, self.weight, self.epsilon = features, weight, epsilon
        self.values = values_per_channel(features)
        # At momentum 1 the running statistics become the batch's own, its variance unbiased.
        running_mean, self.variance = features.new_zeros(2, len(weight))
        self.output, self.mean, self.inverse = torch.native_batch_norm(
            features, weight, bias, running_mean, self.variance, True, 1.0, epsilon
        )
        self.statistics_adjoint: tuple[Tensor, Tensor] | None = None

    def backward(self, delta: Tensor) -> Adjoints:
        self.delta = delta
        found, *self.vector_gradients = self._project(delta, self.weight)
        return (found,)

    def tangent(self, *moved: Tensor | None) -> Tensor | None:
        (self.moved,) = moved
        along, shift = self.vector_directions
        scale = along * self.inverse
        shift = shift - scale * self.mean
        if self.moved is None:
            return torch.addcmul(_channels(shift), self.features, _channels(scale))
        self.turned, self.moved_sum, _ = self._project(self.moved, self.weight)
        return torch.addcmul(self.turned, self.features, _channels(scale)).add_(_channels(shift))

    def reverse(self, adjoint: Tensor | None) -> Adjoints:
        ahead = torch.zeros_like(self.features) if adjoint is None else adjoint * _channels(self.weight)
        along = self.vector_directions[0]
        slope = offset = torch.zeros_like(self.mean)
        if self.moved is not None:
            shrink = self.inverse / self.values
            along = along - self.weight * self.moved_sum * shrink
            ahead.addcmul_(self.moved, _channels(-self.weight * self.vector_gradients[0] * shrink))
            slope = -_total(self.delta * self.turned) * shrink * self.inverse
        ahead.addcmul_(self.delta, _channels(along))
        if self.statistics_adjoint is not None:
            mean, variance = self.statistics_adjoint
            slope = slope + variance * (2 / (self.values - 1))
            offset = mean / self.values
        found = self._project(ahead, None)[0]
        return (found.addcmul_(self.features, _channels(slope)).add_(_channels(offset - slope * self.mean)),)

    def differentiate_weights(self, adjoint: Tensor | None) -> None:
        along = shift = torch.zeros_like(self.weight)
        if adjoint is not None:
            _, along, shift = self._project(adjoint, self.weight)
        if self.moved is not None:  # once more without the weight, which may be 0
            along = along + _total(self.delta * self._project(self.moved, None)[0])
        self.vector_adjoints = along, shift

    def _project(self, values: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """weight·P(values)/σ, Σ x̂·values and Σ values."""
        return torch.ops.aten.native_batch_norm_backward(  # type: ignore[no-any-return]
            values, self.features, weight, None, None, self.mean, self.inverse, True, self.epsilon, [True, True, True]
        )


class Frozen(ParameterLayer):
    """Batch normalisation at its running statistics, x̂ = (x − μ)/σ and γx̂ + β: an affine function of each channel.

    Args:
        features: Its input.
        inverse: 1/σ by channel, like `mean` a constant.
    """

    def __init__(self, features: Tensor, *, weight: Tensor, bias: Tensor, mean: Tensor, inverse: Tensor) -> None:
        self.features, self.mean, self.inverse = features, mean, inverse
        self.scale = weight * inverse
        self.output = torch.addcmul(_channels(bias - mean * self.scale), features, _channels(self.scale))

    def backward(self, delta: Tensor) -> Adjoints:
        self.delta = delta
        total, read = _total(delta), _total(delta * self.features)
        self.vector_gradients = (read - self.mean * total) * self.inverse, total
        return (delta * _channels(self.scale),)

    def tangent(self, *moved: Tensor | None) -> Tensor | None:
        (self.moved,) = moved
        along, shift = self.vector_directions
        self.along = along * self.inverse
        found = torch.addcmul(_channels(shift - self.mean * self.along), self.features, _channels(self.along))
        return found if self.moved is None else found.addcmul_(self.moved, _channels(self.scale))

    def reverse(self, adjoint: Tensor | None) -> Adjoints:
        found = self.delta * _channels(self.along)
        return (found if adjoint is None else found.addcmul_(adjoint, _channels(self.scale)),)

    def differentiate_weights(self, adjoint: Tensor | None) -> None:
        along = shift = torch.zeros_like(self.mean)
        if adjoint is not None:
            shift = _total(adjoint)
            along = (_total(adjoint * self.features) - self.mean * shift) * self.inverse
        if self.moved is not None:
            along = along + _total(self.delta * self.moved) * self.inverse
        self.vector_adjoints = along, shift


def _total(values: Tensor) -> Tensor:
    """Sum over everything but channels (or features)."""
    return values.sum(dim=(0, *range(2, values.dim())))


def _channels(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)
