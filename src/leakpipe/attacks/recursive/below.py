"""The block's input, as the weight gradients of its first convolution and shortcut tell of it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from leakpipe.attacks.recursive.layer import Layer


@dataclass(frozen=True)
class Arrived:
    """The gradients that passed the ReLUs of one block, and what is known of the units behind which they arrive.

    Attributes:
        first: The block's first convolution.
        passed: Gradient behind its batch normalisation.
        normalised: Its ẑ where units are on, from the block's inner map.
        on: Where that is known, of 0 and 1.
        trusted: Weight of each channel of the first convolution's gradient: 0 where what passed may be wrong.
        projection: The shortcut's convolution; None where it has no parameters.
        shortcut: Gradient at the shortcut's output.
        error: Rough relative error of weight gradients that are made of these, and of the update's.
    """

    first: Layer
    passed: Tensor
    normalised: Tensor
    on: Tensor
    trusted: Tensor
    projection: Layer | None
    shortcut: Tensor
    error: float


class InputGradients:
    """Compares the weight gradients that a candidate for the block's input has with those of the update.

    Given the gradients that passed, no second derivative is needed: Δ follows from a forward pass.
    """

    def __init__(self, arrived: Arrived, dtype: torch.dtype) -> None:
        self.first = arrived.first.to(dtype)
        self.projection = arrived.projection.to(dtype) if arrived.projection is not None else None
        self.passed, self.shortcut = arrived.passed.to(dtype), arrived.shortcut.to(dtype)
        self.trusted = arrived.trusted.to(dtype)
        self.normalised, self.on = arrived.normalised.to(dtype), arrived.on.to(dtype) > 0

    def distance(self, features: Tensor) -> Tensor:
        """Returns the mean squared relative distance of the weight gradients, a scalar."""
        normalised = torch.where(self.on, self.normalised, self.first.normalise(self.first.convolve(features)))
        gaps = [self._gap(self.first, self.passed, normalised, features, self.trusted)]
        if self.projection is not None:
            normalised = self.projection.normalise(self.projection.convolve(features))
            gaps.append(
                self._gap(self.projection, self.shortcut, normalised, features, torch.ones_like(self.projection.scale))
            )
        return torch.stack(gaps).mean()

    @staticmethod
    def _gap(layer: Layer, passed: Tensor, normalised: Tensor, features: Tensor, trusted: Tensor) -> Tensor:
        wanted = trusted[:, None] * layer.gradient.flatten(1)
        gap = (
            trusted[:, None]
            * layer.weight_gradient(layer.enter(passed, normalised, own_means=layer.is_rounded), features)
            - wanted
        )
        return gap.square().sum() / wanted.square().sum()
