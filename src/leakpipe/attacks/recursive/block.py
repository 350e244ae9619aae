"""Recovers what one block's convolutions read, from what the blocks above have given."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from leakpipe.attacks.recursive.found import NULL_SPACE, REFINED, Descent, LayerReport, report_map
from leakpipe.attacks.recursive.gradients import (
    can_read_gradient,
    can_solve_inner,
    has_spare_equations,
    read_gradient,
    refine_inner,
    restore_means,
    solve_inner,
)
from leakpipe.attacks.recursive.input_equations import Around, InputEquations
from leakpipe.attacks.recursive.inputs import count_equations, mean_equations, null_space_equations, solve_map
from leakpipe.attacks.recursive.known import KnownBlock
from leakpipe.attacks.recursive.layer import PRECISION, Layer
from leakpipe.attacks.recursive.masks import Mask, guess_mask, keep_large, read_mask, trust_channels
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
MEAN_ROUNDS = 2

Recovered = list[tuple[LayerReport, Tensor]]  # maps, not clamped, each with its report


class _Solution(NamedTuple):
    """An inner map that was solved for, and how: the residual, the mask, and whether entries count by their noise."""

    fit: float
    raw: Tensor
    mask: Mask
    weighted: bool


class BlockStep(KnownBlock):
    """The recovery of one block's maps, from its last unit to its first."""

    def __init__(
        self,
        block: Block,
        layers: Mapping[str, Layer],
        found: Descent,
        generator: torch.Generator,
        above: Block | None,
    ) -> None:
        super().__init__(block, layers, found, above)
        self.generator = generator
        self.unconverged: set[str] = set()

    def run(self, keep: Callable[[LayerReport, Tensor], None]) -> str:
        """Recovers the block's maps and the gradient at its input; returns why a map is missing, or nothing."""
        missing = ""
        for number, layer in reversed(list(enumerate(self.units))):
            if number == 0 and self.knows(1):
                known = self.mask is not None and self.knows(len(self.units) - 1) and self.reads(1)
                self.found.arrived = self.arrived() if known else None
            if not self.knows(number):
                for report, raw in self._recover(number):
                    keep(report, raw)
            if not self.knows(number):
                missing = missing or f"{layer.name}: what it reads did not come out: {self._why(number)}."
        self.found.arriving = self.arriving_below()
        return missing

    def _recover(self, number: int) -> Recovered:
        ways = [self._by_null_space, self._by_forward_pass, self._solve]
        if self.units[number].is_rounded and not self.block.is_bottleneck:  # noise spoils null spaces most
            ways.reverse()
        for recover in ways:
            if found := recover(number):
                return found
        return []

    def _why(self, number: int) -> str:
        layer = self.units[number]
        if layer.name in self.unconverged:
            return "Lanczos iterations for its null space did not converge"
        if layer is self.last and layer.stride > 1:
            return f"a last convolution of stride {layer.stride} is not inverted"
        if (number == 0 or layer.stride > 1) and self._count_equations(number) < math.prod(layer.input_shape):
            return f"{self._count_equations(number)} equations for {math.prod(layer.input_shape)} unknowns"
        if number > 0 and layer.stride == 1 and not can_solve_inner(layer):
            return f"{layer.positions} positions, more than the {layer.weight[:, 0].numel()} gradient equations"
        return "the equations do not fit"

    def _by_null_space(self, number: int) -> Recovered:
        layer = self.units[number]
        if not (layer.has_null_space and layer.stride == 1 and layer.kernel > 1):
            return []
        space = find_null_space(layer, self.generator)
        if space is None:
            self.unconverged.add(layer.name)
            return []
        can_be_refined = can_refine(layer)
        least = LEAST_REFINED_GAP if can_be_refined else LEAST_GAP
        maps = unmix(layer, space) if space.gap >= least else None
        if maps is None:
            return []
        raw, residual, how = scale_maps(layer, maps), float(space.eigenvalues[-2].abs().sqrt()), NULL_SPACE
        if can_be_refined:
            refined, left = refine_map(layer, raw)
            if left <= WORST_LEFT:
                raw, how = scale_maps(layer, refined), REFINED
        raw = self._ordered(number, raw)
        report = report_map(layer, how, raw, residual=residual, gap=space.gap)
        believed = space.gap >= LEAST_GAP or (how == REFINED and report.error <= WORST_ERROR)
        return [(report, raw)] if believed else []

    def _ordered(self, number: int, raw: Tensor) -> Tensor:
        """Returns the images' maps in the order of those above: of a later unit, or of the block's output."""
        if len(raw) == 1:
            return raw
        reached, above = raw, self.output
        for unit, later in zip(self.units[number:], [*self.units[number + 1 :], None], strict=True):
            reached = unit.forward(reached.clamp_min(0)).clamp_min(0)
            if later is not None and later.name in self.found.maps:
                above = self.found.maps[later.name]
                break
        return raw if above is None else raw[order_like(above, reached)]

    def _by_forward_pass(self, number: int) -> Recovered:
        """The map of a 1×1 convolution, which has no null space of its own, from that of the unit before."""
        if self.units[number].kernel > 1 or number == 0:
            return []
        before = self._by_null_space(number - 1)
        if not before:
            return []
        report, raw = before[0]
        reached = self.units[number - 1].forward(raw.clamp_min(0))
        passed = reached.clamp_min(0) + report.error * reached.clamp_max(0)  # entries below 0 tell the noise
        return [(report_map(self.units[number], "forward pass", passed, residual=report.error), passed), *before]

    def _solve(self, number: int) -> Recovered:
        """The map by least squares: on the gradient that arrives behind it, or on what is known around it."""
        layer = self.units[number]
        if number == 0:
            from_gradient = layer.kernel == 1 and self.output is None
        else:
            from_gradient = layer is self.last or layer.stride == 1
        found = self._inner(number) if from_gradient else self._input(number)
        return [found] if found else []

    def _inner(self, number: int) -> tuple[LayerReport, Tensor] | None:
        """A unit's map, from the gradient that arrives at the output of the ReLU behind."""
        layer, arriving, mask = self.units[number], self.arriving_at(number), self.mask_behind(number)
        if not can_solve_inner(layer) or arriving is None or mask is None or not bool((arriving * mask.on).any()):
            return None
        inner, best = None, _Solution(float("inf"), arriving.new_empty(0), mask, False)
        allowed = max(WORST_FIT, WORST_NOISE * layer.noise)
        trusted = trust_channels(layer, arriving * mask.on)
        weighted = False  # every entry of the gradient by its noise, which takes longer
        for attempt in range(MASK_ROUNDS):
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
            hopeless = fit > max(allowed, HOPELESS_FIT) or (layer.is_rounded and attempt > 0 and fit > allowed)
            if not gained or hopeless or not (can_read_gradient(layer) and 0 < float(inner.norm()) < float("inf")):
                break
            passed = layer.leave(read_gradient(layer, inner), normalised, 1 - mask.on)
            better = read_mask(mask, passed, arriving, layer)
            same = bool((better.on == mask.on).all())
            mask = better
            trusted = trust_channels(layer, arriving * mask.on)
            if same and (weighted or not layer.is_rounded) and fit <= allowed:
                break
            weighted = weighted or (layer.is_rounded and (same or attempt >= MASK_ROUNDS // 2))
        if best.fit > allowed:
            return None
        report = report_map(layer, "gradient", best.raw, residual=best.fit, shifted=layer.kernel == 1)
        if report.error > WORST_ERROR:
            return None
        if layer is self.last:
            self.mask = best.mask
        return report, best.raw

    def _input(self, number: int) -> tuple[LayerReport, Tensor] | None:
        """A unit's map from the next unit's; the block's input also from its output and the gradients that arrive."""
        layer, shape = self.units[number], self.units[number].input_shape
        if not (self.knows(number + 1) and self.reads(number + 1)):
            return None
        around = self._around() if number == 0 else None
        arriving = self.arriving_at(number)
        assert arriving is not None  # the next unit's gradient is read
        mask = self.mask_behind(number)
        assert mask is not None  # the next unit's map is known
        if self._count_equations(number) < math.prod(shape):
            return None
        if around is None if number == 0 else layer.kernel > layer.stride + 1:  # `restore_means`
            return None
        readers = [layer] if number > 0 or self.projection is None else [layer, self.projection]
        spaces = [null_space_equations(reader) for reader in readers if reader.has_null_space]
        if layer.kernel == 1 or number > 0:  # the gradient does not tell some of the means
            spaces.append(mean_equations(layer))
        equations = InputEquations(layer, self.found.raw[self.units[number + 1].name], around)
        outside = self.mask
        if self.block.is_bottleneck:  # a channel whose mean is off looks on everywhere
            mask = keep_large(mask, equations.given)
            outside = keep_large(outside, around.output) if outside is not None and around is not None else None
        exact = equations.known(mask, outside) + spaces
        raw, residual = solve_map(shape, exact)
        if can_refine(layer) and bool(raw.any()):
            refined, left = refine_map(layer, raw, equations.known_in_deviations())
            if layer.kernel == 1:  # means are what the other equations tell
                refined = refined + (raw - refined).mean(dim=(0, 2, 3), keepdim=True)
            raw = refined if left <= WORST_LEFT or not self.block.is_bottleneck else raw
        if number > 0:
            for _ in range(MEAN_ROUNDS):  # what the means were off by has spoiled the rest
                raw, residual = solve_map(shape, exact, restore_means(layer, raw))
            raw = restore_means(layer, raw)
        if not layer.has_null_space and around is not None:
            passed = self.behind_block()
            for _ in range(MASK_ROUNDS):
                features = raw.clamp_min(0)
                more = equations.gradients(features, mask, arriving, passed)
                raw, residual = solve_map(shape, exact + more, features)
                if not can_read_gradient(layer):
                    continue
                features = raw.clamp_min(0)
                normalised = layer.normalise(layer.convolve(features))
                read = layer.leave(read_gradient(layer, features), normalised, 1 - mask.on)
                better = read_mask(mask, read, arriving, layer)
                if bool((better.on == mask.on).all()):
                    break
                mask = better
        report = report_map(layer, "least squares", raw, residual=residual, shifted=number > 0)
        allowed = WORST_NOISY_INPUT_FIT if layer.is_rounded else WORST_INPUT_FIT
        return (report, raw) if residual <= allowed and report.error <= WORST_ERROR else None

    def _around(self) -> Around | None:
        if self.output is None or self.mask is None or self.last.name not in self.found.raw:
            return None
        return Around(self.block.stride, self.last, self.projection, self.output, self.found.raw[self.last.name])

    def _count_equations(self, number: int) -> int:
        behind = guess_mask(self.found.raw[self.units[number + 1].name]).certain if self.knows(number + 1) else None
        outside = self.mask.certain if number == 0 and self.mask is not None else None
        readers = [(self.units[number], behind)]
        if number == 0 and self.projection is not None:
            return count_equations([*readers, (self.projection, outside)])
        return count_equations(readers, None if outside is None else outside[:, : self.first.input_shape[1]])


def _compare(layer: Layer, arriving: Tensor, inner: Tensor, trusted: Tensor) -> tuple[Tensor, float]:
    """Returns a map's convolution, normalised, and the relative residual of the weight's trusted gradient."""
    normalised = layer.normalise(layer.convolve(inner))
    before = layer.enter(arriving, normalised, own_means=layer.is_rounded)
    gradient = layer.gradient.flatten(1) * trusted[:, None]
    left = layer.weight_gradient(before, inner) * trusted[:, None] - gradient
    return normalised, float(left.norm() / gradient.norm())
