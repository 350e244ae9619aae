"""One block as far as it is known: its maps, and the gradients that follow from them."""

import math
from collections.abc import Mapping

from torch import Tensor

from leakpipe.attacks.recursive.below import Arrived
from leakpipe.attacks.recursive.forward import before_last_relu
from leakpipe.attacks.recursive.found import Descent
from leakpipe.attacks.recursive.gradients import can_read_gradient, read_gradient, settle_gradient
from leakpipe.attacks.recursive.layer import Layer
from leakpipe.attacks.recursive.masks import Mask, choose_mask, guess_mask, trust_channels
from leakpipe.attacks.recursive.structure import Block

SURELY_OFF = 0.05  # deviations below 0 of what a ReLU gets, from recovered maps: one wrong unit spoils its channel


class KnownBlock:
    """One block: ReLU(shortcut(x) + branch(x)), the branch convolutions with batch normalisation, and ReLUs between.

    A unit's number counts from the block's input on; "its map" is what its convolution reads, and its Δ is the gradient
    at its convolution's output.

    Args:
        block: Its structure.
        layers: Of the whole network, by the convolution's name.
        found: The maps and gradients known so far; read, and not changed here.
        above: The block that follows; None behind the last.

    Attributes:
        units: The branch's convolutions, in order.
        output: The block's output, not clamped; None where it is not known.
        mask: Of the block's last ReLU; None where the output is not known.
    """

    def __init__(
        self,
        block: Block,
        layers: Mapping[str, Layer],
        found: Descent,
        above: Block | None,
    ) -> None:
        self.block, self.found = block, found
        self.units = [layers[unit.convolution] for unit in block.residual]
        self.first, self.last = self.units[0], self.units[-1]
        self.projection = layers[block.projection.convolution] if block.projection else None
        self.output = found.raw.get(above.residual[0].convolution) if above else None
        self.mask = self._mask_of(self.output, self.last, found.arriving) if self.output is not None else None
        self.settled: dict[int, tuple[Tensor, Tensor]] = {}
        self.read: dict[int, Tensor] = {}

    @staticmethod
    def _mask_of(values: Tensor, layer: Layer, arriving: Tensor | None) -> Mask:
        return guess_mask(values) if arriving is None else choose_mask(values, layer, arriving)

    def knows(self, number: int) -> bool:
        """Returns whether a unit's map is known."""
        return self.units[number].name in self.found.maps

    def arriving_at(self, number: int) -> Tensor | None:
        """Gradient at the output of the ReLU behind a unit."""
        if self.units[number] is self.last:
            return self.found.arriving
        return self.units[number + 1].convolve_back(self._before(number + 1)) if self.reads(number + 1) else None

    def mask_behind(self, number: int) -> Mask | None:
        """The mask of the ReLU behind a unit."""
        if self.units[number] is self.last:
            return self.mask
        if not self.knows(number + 1):
            return None
        return self._mask_of(self.found.raw[self.units[number + 1].name], self.units[number], self.arriving_at(number))

    def reads(self, number: int) -> bool:
        """Returns whether Δ of a unit is known: from its map and weight gradient, or from what arrives and its mask."""
        if not self.knows(number):
            return False
        if can_read_gradient(self.units[number]):
            return True
        return self.arriving_at(number) is not None and self.mask_behind(number) is not None

    def _before(self, number: int) -> Tensor:
        """Δ of a unit."""
        layer = self.units[number]
        if can_read_gradient(layer):
            settled = self._settle(number)
            return self._read(number) if settled is None else settled[0]
        normalised = layer.normalise(layer.convolve(self.found.maps[layer.name]))
        return layer.enter(self._masked(number), normalised, own_means=layer.is_rounded)

    def _read(self, number: int) -> Tensor:
        """Δ of a unit from its map and weight gradient alone."""
        if number not in self.read:
            self.read[number] = read_gradient(self.units[number], self.found.maps[self.units[number].name])
        return self.read[number]

    def _settle(self, number: int) -> tuple[Tensor, Tensor] | None:
        """Δ of a unit and the gradient behind it, where rounding spoils what is read."""
        layer = self.units[number]
        if number not in self.settled and layer.is_rounded:
            arriving, mask = self.arriving_at(number), self.mask_behind(number)
            if arriving is not None and mask is not None:
                before, passed, mask = settle_gradient(layer, self.found.maps[layer.name], arriving, mask)
                self.settled[number] = before, passed
                if layer is self.last:
                    self.mask = mask
        return self.settled.get(number)

    def behind_block(self) -> Tensor:
        """Gradient that passed the block's last ReLU."""
        last = len(self.units) - 1
        if can_read_gradient(self.last) and (settled := self._settle(last)) is not None:
            return settled[1]
        inner = self.found.maps[self.last.name]
        normalised = self.last.normalise(self.last.convolve(inner))
        if self.knows(0):
            features = self.found.maps[self.first.name]
            reached = before_last_relu(self.last, self.projection, self.block.stride, inner, features)
            off = (reached < -SURELY_OFF * reached.std()).double()
        else:
            assert self.mask is not None  # callers have asked `reads`
            off = 1 - self.mask.on
        if can_read_gradient(self.last):
            return self.last.leave(self._read(last), normalised, off)
        return self._masked(last)

    def _masked(self, number: int) -> Tensor:
        arriving, mask = self.arriving_at(number), self.mask_behind(number)
        assert arriving is not None  # `reads`
        assert mask is not None
        return arriving * mask.on

    def arriving_below(self) -> Tensor | None:
        """Gradient at the block's input; None where a map is missing, or has too many positions to read it."""
        known = all(self.knows(number) for number in range(len(self.units)))
        if not (known and can_read_gradient(self.first) and self.reads(1)):
            return None
        features, passed = self.found.maps[self.first.name], self.behind_block()
        below = self.first.convolve_back(self._before(0))
        if self.projection is not None:
            side = self.projection
            return below + side.convolve_back(
                side.enter(passed, side.normalise(side.convolve(features)), own_means=True)
            )
        stride = self.block.stride
        below[:, :, ::stride, ::stride] += passed[:, : below.shape[1]]
        return below

    def arrived(self) -> Arrived:
        """Returns the gradients that tell of the block's input; the first two units' Δ are known."""
        arriving, mask = self.arriving_at(0), self.mask_behind(0)
        assert arriving is not None  # the second unit's Δ is known
        assert mask is not None
        behind = self.units[1]
        passed, known = arriving * mask.on, self.first.unscale(self.found.maps[behind.name])
        trusted = trust_channels(self.first, passed)
        error = math.hypot(self.found.report_of(behind.name).error, self.first.noise)
        return Arrived(self.first, passed, known, mask.on, trusted, self.projection, self.behind_block(), error)
