"""Equations for what a convolution in a block reads: of what it gives, of the block's output, of gradients."""

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
class Around:
    """What a block's output tells of its input, given the map of the block's last convolution.

    Attributes:
        stride: Of the block.
        last: Its last convolution.
        projection: The shortcut's convolution; None where it has no parameters.
        output: The block's output, not clamped.
        inner: What `last` reads, not clamped.
    """

    stride: int
    last: Layer
    projection: Layer | None
    output: Tensor
    inner: Tensor


@dataclass(frozen=True)
class InputEquations:
    """Linear equations for what one convolution of a block reads.

    Attributes:
        layer: The convolution.
        given: What the ReLU behind its batch normalisation gives, not clamped.
        around: Of a block's first convolution, what the block's output tells; None where that is not known.
    """

    layer: Layer
    given: Tensor
    around: Around | None

    def known(self, inside: Mask, outside: Mask | None) -> list[Equations]:
        """Returns those that hold whatever units in doubt are.

        Args:
            inside: Of `given`.
            outside: Of the block's output; None where nothing is known around.
        """
        return self._where(inside.certain, None if outside is None else outside.certain)

    def known_in_deviations(self) -> list[Equations]:
        """Returns the same in deviations of their noise, beside which a unit that is barely on does little harm."""
        noise = estimate_noise(self.given)
        inside = (self.given > SURELY_ON * noise).double() * by_channel(self.layer.scale.abs()) / noise
        if self.around is None:
            return self._where(inside, None)
        around = self.around
        off = around.inner.clamp_max(0).norm() / around.inner.norm()
        beside = torch.hypot(estimate_noise(around.output), 2 * off * by_channel(around.last.scale.abs()))
        outside = (around.output > SURELY_ON * beside).double() / beside
        if around.projection is not None:
            outside = outside * by_channel(around.projection.scale.abs())
        return self._where(inside, outside)

    def gradients(self, features: Tensor, mask: Mask, arriving: Tensor, passed: Tensor) -> list[Equations]:
        """Returns those of the weight gradients.

        Args:
            features: A guess of the map, for ẑ where units are off.
            mask: Of `given`.
            arriving: Gradient at `given`.
            passed: Gradient behind the block's last ReLU.
        """
        layer, own = self.layer, self.layer.is_rounded
        normalised = layer.normalise(layer.convolve(features))
        normalised = torch.where(mask.on > 0, layer.unscale(self.given.clamp_min(0)), normalised)
        trusted = trust_channels(layer, arriving * mask.on)
        before = layer.enter(arriving * mask.on, normalised, own_means=own)
        equations = [gradient_equations(layer, before, trusted)]
        if self.around is not None and self.around.projection is not None:
            side = self.around.projection
            before = side.enter(passed, side.normalise(side.convolve(features)), own_means=own)
            equations.append(gradient_equations(side, before, torch.ones_like(side.scale)))
        return equations

    def _where(self, inside: Tensor, outside: Tensor | None) -> list[Equations]:
        equations = [convolution_equations(self.layer, self.layer.unscale(self.given.clamp_min(0)), inside)]
        if self.around is None or outside is None:
            return equations
        around = self.around
        skipped = around.output - around.last.forward(around.inner.clamp_min(0))
        if around.projection is None:
            return [*equations, shortcut_equations(around.stride, self.layer.input_shape, skipped, outside)]
        return [*equations, convolution_equations(around.projection, around.projection.unscale(skipped), outside)]
