"""One block: its inner map and its input, from what the blocks above have given."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from leakpipe.attacks.recursive.below import Arrived
from leakpipe.attacks.recursive.forward import before_last_relu
from leakpipe.attacks.recursive.found import NULL_SPACE, REFINED, Descent, LayerReport, report_map
from leakpipe.attacks.recursive.gradients import (
    can_read_gradient,
    can_solve_inner,
    has_spare_equations,
    read_gradient,
    refine_inner,
    settle_gradient,
    solve_inner,
)
from leakpipe.attacks.recursive.input_equations import InputEquations
from leakpipe.attacks.recursive.inputs import count_equations, null_space_equations, solve_map
from leakpipe.attacks.recursive.layer import PRECISION, Layer
from leakpipe.attacks.recursive.masks import Mask, choose_mask, guess_mask, read_mask, trust_channels
from leakpipe.attacks.recursive.nullspace import find_null_space, scale_maps
from leakpipe.attacks.recursive.refine import can_refine, refine_map
from leakpipe.attacks.recursive.structure import Block
from leakpipe.attacks.recursive.unmixing import order_like, unmix

LEAST_GAP = 3.0  # of the eigenvalue behind a null space to the one inside it, below which there is none
LEAST_REFINED_GAP = 1.2  # likewise, where all of the weight's gradient refines the map
WORST_FIT = 0.05  # relative residual of a weight's gradient, above which an inner map is not believed
HOPELESS_FIT = 0.8  # the same residual, above which corrected masks are not expected to lower it enough
LEAST_FALL = 0.1  # of the residual of a map that is believed, by which a corrected mask has to lower it to go on
WORST_NOISE = 1.1  # the same residual in lengths of the noise, where that is more
WORST_INPUT_FIT, WORST_NOISY_INPUT_FIT = 0.1, 0.5  # of the equations for a block's input, the latter beside noise
WORST_ERROR = 0.2  # relative error of a map (`LayerReport.error`), likewise
ROUGH_FIT = 2e-3  # relative residual, above which the fixed-point iteration is not believed to have ended
WORST_LEFT = 2.0  # residual of a refined map in deviations of the noise, likewise
MASK_ROUNDS = 6
SURELY_OFF = 0.05  # deviations below 0 of what a ReLU gets, from recovered maps: one wrong unit spoils its channel


class _Solution(NamedTuple):
    """An inner map that was solved for, and how: the residual, the mask, and whether entries count by their noise."""

    fit: float
    raw: Tensor
    mask: Mask
    weighted: bool


class BlockStep:
    """One block: ReLU(shortcut(x) + BN(conv(ReLU(BN(conv(x))))))."""

    def __init__(
        self,
        block: Block,
        layers: Mapping[str, Layer],
        found: Descent,
        generator: torch.Generator,
        above: Block | None,
    ) -> None:
        self.block, self.found, self.generator = block, found, generator
        self.first, self.second = (layers[unit.convolution] for unit in block.residual)
        self.projection = layers[block.projection.convolution] if block.projection else None
        self.readers = [layer for layer in (self.first, self.projection) if layer is not None]  # of the block's input
        self.output = found.raw.get(above.residual[0].convolution) if above else None
        self.mask = self._mask_of(self.output, self.second, found.arriving) if self.output is not None else None
        self.unconverged: set[str] = set()
        self.settled: tuple[Tensor, Tensor] | None = None

    @staticmethod
    def _mask_of(values: Tensor, layer: Layer, arriving: Tensor | None) -> Mask:
        return guess_mask(values) if arriving is None else choose_mask(values, layer, arriving)

    def run(self, keep: Callable[[LayerReport, Tensor], None]) -> str:
        """Recovers the block's two maps and the gradient at its input; returns why a map is missing, or nothing."""
        missing = ""
        for layer, is_inner in ((self.second, True), (self.first, False)):
            if not is_inner and self.second.name in self.found.maps:
                self.found.arrived = self._arrived() if self.mask is not None and self._reads_second() else None
            ways = [self._by_null_space, self._inner if is_inner else self._input]
            if layer.is_rounded:  # noise spoils the null space more than what is known from above
                ways.reverse()
            for recover in ways:
                recovered = recover(layer)
                if recovered is not None:
                    keep(*recovered)
                    break
            else:
                missing = missing or f"{layer.name}: what it reads did not come out: {self._why(layer)}."
        self.found.arriving = self._arriving_below()
        return missing

    def _why(self, layer: Layer) -> str:
        if layer.name in self.unconverged:
            return "Lanczos iterations for its null space did not converge"
        if layer is self.first and self._count_equations() < int(np.prod(layer.input_shape)):
            return f"{self._count_equations()} equations for {int(np.prod(layer.input_shape))} unknowns"
        if layer is self.second and not can_solve_inner(layer):
            return f"{layer.positions} positions, more than the {layer.weight[:, 0].numel()} gradient equations"
        return "the equations do not fit"

    def _by_null_space(self, layer: Layer) -> tuple[LayerReport, Tensor] | None:
        if not (layer.has_null_space and layer.stride == 1 and layer.kernel > 1):
            return None
        space = find_null_space(layer, self.generator)
        if space is None:
            self.unconverged.add(layer.name)
            return None
        can_be_refined = can_refine(layer)
        least = LEAST_REFINED_GAP if can_be_refined else LEAST_GAP
        maps = unmix(layer, space) if space.gap >= least else None
        if maps is None:
            return None
        raw, residual, how = scale_maps(layer, maps), float(space.eigenvalues[-2].abs().sqrt()), NULL_SPACE
        if can_be_refined:
            refined, left = refine_map(layer, raw)
            if left <= WORST_LEFT:
                raw, how = scale_maps(layer, refined), REFINED
        raw = self._ordered(layer, raw)
        report = report_map(layer, how, raw, residual=residual, gap=space.gap)
        believed = space.gap >= LEAST_GAP or (how == REFINED and report.error <= WORST_ERROR)
        return (report, raw) if believed else None

    def _ordered(self, layer: Layer, raw: Tensor) -> Tensor:
        """Returns the images' maps in the order of those above: of the inner map, or of the block's output."""
        above = self.found.maps.get(self.second.name) if layer is self.first else self.output
        if above is None or len(raw) == 1:
            return raw
        return raw[order_like(above, layer.forward(raw.clamp_min(0)).clamp_min(0))]

    def _inner(self, layer: Layer) -> tuple[LayerReport, Tensor] | None:
        """The inner map, from the gradient that arrives at the block's output."""
        arriving, mask = self.found.arriving, self.mask
        if not can_solve_inner(layer) or arriving is None or mask is None or not bool((arriving * mask.on).any()):
            return None
        inner, best = None, _Solution(float("inf"), arriving.new_empty(0), mask, False)
        allowed = max(WORST_FIT, WORST_NOISE * layer.noise)
        trusted = trust_channels(layer, arriving * mask.on)
        weighted = False  # every entry of the gradient by its noise, which takes longer
        for number in range(MASK_ROUNDS):
            masked, equations = arriving * mask.on, int(trusted.count_nonzero()) * layer.gradient[0].numel()
            enough = equations >= math.prod(layer.input_shape)  # else any map fits them
            if not weighted:
                inner, raw = solve_inner(layer, masked, trusted, inner)
                normalised, fit = _compare(layer, masked, inner, trusted)
                weighted = layer.noise > PRECISION or (fit > ROUGH_FIT and not has_spare_equations(layer))
            if weighted:
                assert inner is not None  # the first round has solved for it
                inner, raw = refine_inner(layer, masked, trusted, inner)
                normalised, fit = _compare(layer, masked, inner, trusted)
            assert inner is not None
            comparable = best.fit <= allowed and weighted == best.weighted
            gained = not comparable or fit < (1 - LEAST_FALL) * best.fit
            if enough and (fit < best.fit or (weighted and not best.weighted)):
                best = _Solution(fit, raw, mask, weighted)
            hopeless = fit > max(allowed, HOPELESS_FIT) or (layer.is_rounded and number > 0 and fit > allowed)
            if not gained or hopeless or not (can_read_gradient(layer) and 0 < float(inner.norm()) < float("inf")):
                break
            passed = layer.leave(read_gradient(layer, inner), normalised, 1 - mask.on)
            better = read_mask(mask, passed, arriving, layer)
            same = bool((better.on == mask.on).all())
            mask = better
            trusted = trust_channels(layer, arriving * mask.on)
            if same and (weighted or not layer.is_rounded) and fit <= allowed:
                break
            weighted = weighted or (layer.is_rounded and (same or number >= MASK_ROUNDS // 2))
        if best.fit > allowed:
            return None
        report = report_map(layer, "gradient", best.raw, residual=best.fit)
        if report.error > WORST_ERROR:
            return None
        self.mask = best.mask
        return report, best.raw

    def _input(self, layer: Layer) -> tuple[LayerReport, Tensor] | None:
        """The block's input, from its output, its inner map and the gradient at the inner map."""
        if self.output is None or self.mask is None or self.second.name not in self.found.maps:
            return None
        if not self._reads_second():
            return None
        second = self.second
        passed, arriving = self._behind_block(), second.convolve_back(self._before_second())
        mask = choose_mask(self.found.raw[second.name], layer, arriving)
        if self._count_equations() < int(np.prod(layer.input_shape)):
            return None
        spaces = [null_space_equations(reader) for reader in self.readers if reader.has_null_space]
        equations = InputEquations(
            self.block.stride, layer, second, self.projection, self.output, self.found.raw[second.name]
        )
        exact = equations.known(mask, self.mask) + spaces
        raw, residual = solve_map(layer.input_shape, exact)
        if can_refine(layer) and bool(raw.any()):
            raw, _ = refine_map(layer, raw, equations.known_in_deviations())
        if not layer.has_null_space:
            for _ in range(MASK_ROUNDS):
                features = raw.clamp_min(0)
                more = equations.gradients(features, mask, arriving, passed)
                raw, residual = solve_map(layer.input_shape, exact + more, features)
                if not can_read_gradient(layer):
                    continue
                features = raw.clamp_min(0)
                normalised = layer.normalise(layer.convolve(features))
                read = layer.leave(read_gradient(layer, features), normalised, 1 - mask.on)
                better = read_mask(mask, read, arriving, layer)
                if bool((better.on == mask.on).all()):
                    break
                mask = better
        report = report_map(layer, "least squares", raw, residual=residual)
        allowed = WORST_NOISY_INPUT_FIT if layer.is_rounded else WORST_INPUT_FIT
        return (report, raw) if residual <= allowed and report.error <= WORST_ERROR else None

    def _arrived(self) -> Arrived:
        arriving = self.second.convolve_back(self._before_second())
        mask = choose_mask(self.found.raw[self.second.name], self.first, arriving)
        passed, known = arriving * mask.on, self.first.unscale(self.found.maps[self.second.name])
        trusted = trust_channels(self.first, passed)
        inner = next(report for report in self.found.reports if report.layer == self.second.name)
        error = math.hypot(inner.error, self.first.noise)
        return Arrived(self.first, passed, known, mask.on, trusted, self.projection, self._behind_block(), error)

    def _count_equations(self) -> int:
        known = []
        if self.mask is not None:
            known.append(self.mask.certain if self.projection else self.mask.certain[:, : self.first.input_shape[1]])
            if self.second.name in self.found.raw:
                known.append(guess_mask(self.found.raw[self.second.name]).certain)
        return count_equations(self.readers, known)

    def _reads_second(self) -> bool:
        """Returns whether Δ of the second convolution is known, given its map."""
        return can_read_gradient(self.second) or (self.found.arriving is not None and self.mask is not None)

    def _before_second(self) -> Tensor:
        """Δ of the second convolution."""
        inner = self.found.maps[self.second.name]
        if can_read_gradient(self.second):
            settled = self._settle()
            return read_gradient(self.second, inner) if settled is None else settled[0]
        normalised = self.second.normalise(self.second.convolve(inner))
        return self.second.enter(self._masked(), normalised, own_means=self.second.is_rounded)

    def _settle(self) -> tuple[Tensor, Tensor] | None:
        """Δ of the second convolution and the gradient behind it, where rounding spoils what is read."""
        arriving, mask = self.found.arriving, self.mask
        if self.settled is None and self.second.is_rounded and arriving is not None and mask is not None:
            inner = self.found.maps[self.second.name]
            before, passed, self.mask = settle_gradient(self.second, inner, arriving, mask)
            self.settled = before, passed
        return self.settled

    def _behind_block(self) -> Tensor:
        """Gradient that passed the block's last ReLU."""
        if can_read_gradient(self.second) and (settled := self._settle()) is not None:
            return settled[1]
        inner = self.found.maps[self.second.name]
        normalised = self.second.normalise(self.second.convolve(inner))
        if self.first.name in self.found.maps:
            features = self.found.maps[self.first.name]
            reached = before_last_relu(self.second, self.projection, self.block.stride, inner, features)
            off = (reached < -SURELY_OFF * reached.std()).double()
        else:
            assert self.mask is not None  # `_reads_second`
            off = 1 - self.mask.on
        if can_read_gradient(self.second):
            return self.second.leave(read_gradient(self.second, inner), normalised, off)
        return self._masked()

    def _before_first(self, features: Tensor) -> Tensor:
        """Δ of the first convolution."""
        if not self.first.is_rounded:
            return read_gradient(self.first, features)
        arriving = self.second.convolve_back(self._before_second())
        mask = choose_mask(self.found.raw[self.second.name], self.first, arriving)
        return settle_gradient(self.first, features, arriving, mask)[0]

    def _masked(self) -> Tensor:
        assert self.found.arriving is not None
        assert self.mask is not None
        return self.found.arriving * self.mask.on

    def _arriving_below(self) -> Tensor | None:
        """Gradient at the block's input; None where a map is missing, or has too many positions to read it."""
        known = {self.first.name, self.second.name} <= self.found.maps.keys()
        if not (known and can_read_gradient(self.first) and self._reads_second()):
            return None
        features, passed = self.found.maps[self.first.name], self._behind_block()
        below = self.first.convolve_back(self._before_first(features))
        if self.projection is not None:
            side = self.projection
            return below + side.convolve_back(
                side.enter(passed, side.normalise(side.convolve(features)), own_means=True)
            )
        stride = self.block.stride
        below[:, :, ::stride, ::stride] += passed[:, : below.shape[1]]
        return below


def _compare(layer: Layer, arriving: Tensor, inner: Tensor, trusted: Tensor) -> tuple[Tensor, float]:
    """Returns a map's convolution, normalised, and the relative residual of the weight's trusted gradient."""
    normalised = layer.normalise(layer.convolve(inner))
    before = layer.enter(arriving, normalised, own_means=layer.is_rounded)
    gradient = layer.gradient.flatten(1) * trusted[:, None]
    left = layer.weight_gradient(before, inner) * trusted[:, None] - gradient
    return normalised, float(left.norm() / gradient.norm())
