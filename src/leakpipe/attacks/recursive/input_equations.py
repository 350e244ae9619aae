"""The equations that a block's output, its inner map and its weight gradients are for the block's input."""

from dataclasses import dataclass

import torch
from torch import Tensor

from leakpipe.attacks.recursive.inputs import (
    Equations,
    convolution_equations,
    gradient_equations,
    shortcut_equations,
)
from leakpipe.attacks.recursive.layer import Layer, by_channel
from leakpipe.attacks.recursive.masks import Mask, estimate_noise, trust_channels

SURELY_ON = 6.0  # deviations of a value's noise, for equations that are weighted by it


@dataclass(frozen=True)
class InputEquations:
    """Linear equations for the input of one block.

    Attributes:
        stride: Of the block.
        first: Its first convolution.
        second: Its last one.
        projection: The shortcut's convolution; None where it has no parameters.
        output: The block's output, not clamped.
        inner: What `second` reads, not clamped.
    """

    stride: int
    first: Layer
    second: Layer
    projection: Layer | None
    output: Tensor
    inner: Tensor

    def known(self, inside: Mask, outside: Mask) -> list[Equations]:
        """Returns those that hold whatever units in doubt are.

        Args:
            inside: Of the inner map.
            outside: Of the output.
        """
        return self._where(inside.certain, outside.certain)

    def known_in_deviations(self) -> list[Equations]:
        """Returns the same in deviations of their noise, beside which a unit that is barely on does little harm."""
        noise, beside = estimate_noise(self.inner), by_channel(self.second.scale.abs())
        off = self.inner.clamp_max(0).norm() / self.inner.norm()
        beside = torch.hypot(estimate_noise(self.output), 2 * off * beside)
        inside = (self.inner > SURELY_ON * noise).double() * by_channel(self.first.scale.abs()) / noise
        outside = (self.output > SURELY_ON * beside).double() / beside
        if self.projection is not None:
            outside = outside * by_channel(self.projection.scale.abs())
        return self._where(inside, outside)

    def gradients(self, features: Tensor, mask: Mask, arriving: Tensor, passed: Tensor) -> list[Equations]:
        """Returns those of the weight gradients.

        Args:
            features: A guess of the input, for ẑ where units are off.
            mask: Of the inner map.
            arriving: Gradient at the inner map.
            passed: Gradient behind the block's last ReLU.
        """
        first, own = self.first, self.first.is_rounded
        normalised = first.normalise(first.convolve(features))
        normalised = torch.where(mask.on > 0, first.unscale(self.inner.clamp_min(0)), normalised)
        trusted = trust_channels(first, arriving * mask.on)
        before = first.enter(arriving * mask.on, normalised, own_means=own)
        equations = [gradient_equations(first, before, trusted)]
        if self.projection is not None:
            side = self.projection
            before = side.enter(passed, side.normalise(side.convolve(features)), own_means=own)
            equations.append(gradient_equations(side, before, torch.ones_like(side.scale)))
        return equations

    def _where(self, inside: Tensor, outside: Tensor) -> list[Equations]:
        inner = self.inner.clamp_min(0)
        skipped = self.output - self.second.forward(inner)
        equations = [convolution_equations(self.first, self.first.unscale(inner), inside)]
        if self.projection is None:
            return [*equations, shortcut_equations(self.stride, self.first.input_shape, skipped, outside)]
        return [*equations, convolution_equations(self.projection, self.projection.unscale(skipped), outside)]
