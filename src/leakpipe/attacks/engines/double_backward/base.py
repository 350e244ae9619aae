"""The part of a layer in the four passes of the double backward, and the layers without parameters.

A weight gradient g = ∂loss/∂W, taken in a direction v, is the derivative of the loss along v: ⟨g, v⟩ = Ṡ. Its
derivative in the candidates' images follows from four passes through the network:

1. forward: the output h of every layer;
2. backward: the loss's derivative δ with respect to h, which gives g, and from g the attack's direction v;
3. tangent: how h moves when the weights move along v, ḣ;
4. reverse: the derivative of Ṡ with respect to h, written h̄, back to the images.

The derivative of Ṡ with respect to ḣ is δ again, so that the reverse pass reuses it. Only the second pass makes
gradients of weights, and the last one where weights move between steps (`SeveralSteps`). Automatic differentiation of
the backward pass (Zhu 2019) arrives at the same numbers.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Adjoints = tuple[Tensor | None, ...]


def pull_back(adjoint: Tensor, result: Tensor, inputs: Sequence[Tensor]) -> Adjoints:
    """Adjoints of `inputs` from that of `result`, whose graph is kept; None where it does not depend on one.

    Differentiates an inner product, because `torch.autograd.grad(result, inputs, adjoint)` imports sympy to compare two
    shapes, which takes longer than many an attack.
    """
    with torch.enable_grad():
        inner = (result * adjoint).sum()
    return torch.autograd.grad(inner, inputs, retain_graph=True, allow_unused=True)


class Layer(ABC):
    """One layer's part in the passes; the forward pass makes it, and it keeps what the other passes need.

    `tangent` comes after `backward`, `reverse` after `tangent`. Tensors have the shapes of the layer's inputs and
    output; None is zero.

    Attributes:
        output: The layer's output h.
    """

    output: Tensor

    @abstractmethod
    def backward(self, delta: Tensor) -> Adjoints:
        """δ of each input."""

    @abstractmethod
    def tangent(self, *moved: Tensor | None) -> Tensor | None:
        """ḣ of the output from that of each input."""

    @abstractmethod
    def reverse(self, adjoint: Tensor | None) -> Adjoints:
        """h̄ of each input from that of the output."""


class Rectifier(Layer):
    """max(h, 0); with a slope, a sigmoid's derivative stands in for that of its step (`attacks.surrogate`)."""

    def __init__(self, features: Tensor, *, slope: float) -> None:
        self.output = features.clamp_min(0)
        self.slope, self.features = slope, features if slope > 0 else None

    def backward(self, delta: Tensor) -> Adjoints:
        self.delta = delta
        return (self._gated(delta),)

    def tangent(self, *moved: Tensor | None) -> Tensor | None:
        (self.moved,) = moved
        return None if self.moved is None else self._gated(self.moved)

    def reverse(self, adjoint: Tensor | None) -> Adjoints:
        gated = None if adjoint is None else self._gated(adjoint)
        if self.features is None or self.moved is None:
            return (gated,)
        sigmoid = torch.sigmoid(self.features * self.slope)
        switched = torch.ops.aten.sigmoid_backward(self.moved * self.delta, sigmoid)
        return (switched * self.slope if gated is None else gated.add_(switched, alpha=self.slope),)

    def _gated(self, values: Tensor) -> Tensor:
        return torch.ops.aten.threshold_backward(values, self.output, 0)  # type: ignore[no-any-return]


class MaxPool(Layer):
    """The largest value of each window; its place is taken as fixed."""

    def __init__(self, layer: torch.nn.MaxPool2d, features: Tensor) -> None:
        self.layer, self.features = layer, features
        self.output, self.places = torch.nn.functional.max_pool2d(
            features, layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode, True
        )

    def backward(self, delta: Tensor) -> Adjoints:
        layer = self.layer
        window = [
            [value] * 2 if isinstance(value, int) else list(value)
            for value in (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        ]
        back = torch.ops.aten.max_pool2d_with_indices_backward
        return (back(delta, self.features, *window, layer.ceil_mode, self.places),)

    def tangent(self, *moved: Tensor | None) -> Tensor | None:
        (found,) = moved
        return None if found is None else found.flatten(2).gather(2, self.places.flatten(2)).view_as(self.output)

    def reverse(self, adjoint: Tensor | None) -> Adjoints:
        return (None,) if adjoint is None else self.backward(adjoint)


class Sum(Layer):
    """The sum of two tensors of one shape."""

    def __init__(self, first: Tensor, second: Tensor) -> None:
        self.output = first + second

    def backward(self, delta: Tensor) -> Adjoints:
        return delta, delta

    def tangent(self, *moved: Tensor | None) -> Tensor | None:
        first, second = moved
        if first is None or second is None:
            return second if first is None else first
        return first + second

    def reverse(self, adjoint: Tensor | None) -> Adjoints:
        return adjoint, adjoint


class Linear(Layer):
    """Any linear function without parameters (an average, a padding, a change of shape), which torch differentiates."""

    def __init__(self, function: Callable[..., Tensor], *features: Tensor) -> None:
        self.function = function
        with torch.enable_grad():
            self.inputs = [value.detach().requires_grad_() for value in features]
            self.result = function(*self.inputs)
        self.output = self.result.detach()

    def backward(self, delta: Tensor) -> Adjoints:
        return pull_back(delta, self.result, self.inputs)

    def tangent(self, *moved: Tensor | None) -> Tensor | None:
        if all(value is None for value in moved):
            return None
        pairs = zip(moved, self.inputs, strict=True)
        return self.function(*(torch.zeros_like(read) if value is None else value for value, read in pairs)).detach()

    def reverse(self, adjoint: Tensor | None) -> Adjoints:
        return (None,) * len(self.inputs) if adjoint is None else self.backward(adjoint)


class Preprocessing(Linear):
    """Any function before the first parameters (a normalisation, a change of shape): its values never move."""

    def backward(self, delta: Tensor) -> Adjoints:  # noqa: ARG002 no parameter reads it
        return (None,) * len(self.inputs)

    def tangent(self, *moved: Tensor | None) -> Tensor | None:  # noqa: ARG002 nothing moves
        return None

    def reverse(self, adjoint: Tensor | None) -> Adjoints:
        if adjoint is None or not self.result.requires_grad:
            return (None,) * len(self.inputs)
        return pull_back(adjoint, self.result, self.inputs)
