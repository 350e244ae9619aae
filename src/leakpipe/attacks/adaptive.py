"""What an attacker makes of an update who was told the defence (Kerckhoffs's principle): `adapt`.

A naive attack takes what was shared for what was trained. Told the steps, an attacker undoes them backwards, as far
as that goes:

- Noise: its deviation σ is known (`dp-gaussian`, a given `scale`) or estimated from the update itself. Each tensor
  is shrunk by max(0, 1 − n·σ²/‖v‖²), the share of its energy that is not noise (James and Stein 1961, positive
  part); a tensor that nothing is left of is not compared.
- What is rounded or left out came from an interval: a value not shared is below the smallest shared one, a rounded
  one is within a step, a sign is half a line. Values of a candidate inside the interval agree.
- `clip` changes no direction, which is all that a cosine sees; withheld statistics and averages are nothing to undo.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial

import torch
from torch import Tensor

from leakpipe.federation.local import ClientUpdate
from leakpipe.models.state import Tensors
from leakpipe.params_defenses import (
    DefenseStep,
    DefenseSteps,
    DpGaussianParams,
    GaussianParams,
    LaplaceParams,
    PartialSharingParams,
    QuantizeParams,
    SignParams,
    TopKParams,
)

Bounds = tuple[Tensor, Tensor]
ROUNDING = 1e-6  # relative, of 32-bit floats
NORMAL_MEDIAN = 0.6745  # median magnitude of a standard normal value


@dataclass(frozen=True)
class Adapted:
    """An update as an attacker reads it.

    Attributes:
        weights: Denoised weight differences; those that tell nothing are not among them.
        weight_bounds: Between what each value of `weights` was trained to be; empty where all are exact.
        statistic_bounds: The same of the differences of running statistics.
        statistic_noise: Standard deviation of the noise on differences of running statistics.
    """

    weights: Tensors
    weight_bounds: Mapping[str, Bounds]
    statistic_bounds: Mapping[str, Bounds]
    statistic_noise: float


@dataclass(frozen=True)
class _Reading:
    """One tensor on its way back: its value, what that may have been, and the deviation of the noise on it."""

    name: str
    is_weight: bool
    value: Tensor
    lower: Tensor
    upper: Tensor
    deviation: float = 0.0

    @property
    def tells(self) -> bool:
        """Whether anything is known of it: not all of it drowned in noise, and not all of it may be anything."""
        drowned = self.deviation > 0 and not bool(self.value.any())
        return not drowned and bool((self.lower.isfinite() | self.upper.isfinite()).any())


def adapt(update: ClientUpdate, defense: DefenseSteps) -> Adapted:
    """Undo a known defence as far as it can be.

    If nothing is left of any weight difference, they are returned as they are: the attack is then the naive one.

    Args:
        update: As shared.
        defense: Steps that the client applied, in order.
    """
    parts = ((True, update.weights), (False, update.statistics))
    readings = [_Reading(name, kind, v, v, v) for kind, part in parts for name, v in part.items()]
    for step in reversed(defense.root):
        undo = _undo(step, readings, update.steps)
        readings = [undo(reading) for reading in readings]
    weights = [reading for reading in readings if reading.is_weight and reading.tells]
    statistics = [reading for reading in readings if not reading.is_weight]
    return Adapted(
        weights={reading.name: reading.value for reading in weights} or update.weights,
        weight_bounds=_bounds(weights),
        statistic_bounds=_bounds(statistics),
        statistic_noise=max((reading.deviation for reading in statistics), default=0.0),
    )


def clamp_to(bounds: Mapping[str, Bounds], candidate: Tensors) -> dict[str, Tensor]:
    """What may have been trained, nearest to the candidate's own, without a graph."""
    return {name: torch.clamp(candidate[name].detach(), *between) for name, between in bounds.items()}


def noise_deviation(values: Sequence[Tensor], step: GaussianParams | LaplaceParams | DpGaussianParams) -> float:
    """Standard deviation of a step's noise: known, or estimated where it depends on the client's data.

    The estimate is the median magnitude over that of unit noise (Donoho and Johnstone 1994): most values of an
    update are much smaller than the percentile that scales its noise. It is too large where there is little noise.

    Args:
        values: Tensors that hold the noise.
    """
    if isinstance(step, DpGaussianParams):
        return step.noise_multiplier * step.clip_norm
    if isinstance(step, LaplaceParams) and step.scale is not None:
        return math.sqrt(2) * step.scale
    if (step.sigma0 if isinstance(step, GaussianParams) else step.scale0) == 0:
        return 0.0
    median = torch.cat([value.flatten().double().abs() for value in values]).median().item()
    return median / NORMAL_MEDIAN if isinstance(step, GaussianParams) else math.sqrt(2) * median / math.log(2)


def _undo(step: DefenseStep, shared: Sequence[_Reading], local_steps: int) -> Callable[[_Reading], _Reading]:
    """How one step is undone on any tensor of what it shared."""
    if isinstance(step, GaussianParams | LaplaceParams | DpGaussianParams):
        targets = "all" if isinstance(step, DpGaussianParams) else step.targets
        noisy = [part for part in shared if targets == "all" or part.is_weight == (targets == "weights")]
        deviation = noise_deviation([part.value for part in noisy], step)
        names = {part.name for part in noisy}
        return lambda reading: _denoise(reading, deviation) if reading.name in names else reading
    if isinstance(step, QuantizeParams):
        levels = 2 ** (step.bits - 1) - 1
        return lambda reading: _widen(reading, float(reading.value.abs().max()) / levels)
    if isinstance(step, SignParams):
        return _extend_signs
    if isinstance(step, TopKParams):
        return partial(_complete, smallest=_smallest_shared(shared), largest=math.inf, hidden=())
    if isinstance(step, PartialSharingParams):
        largest = step.clip * local_steps * (1 - ROUNDING)
        smallest = _smallest_shared(shared)
        smallest = math.inf if smallest >= largest else smallest  # all that is known of it was clipped away
        return partial(_complete, smallest=smallest, largest=largest, hidden=step.exclude)
    return lambda reading: reading


def _denoise(reading: _Reading, deviation: float) -> _Reading:
    """Shrink a weight tensor to the share of its energy that is not noise; statistics keep their values."""
    noisy = replace(reading, deviation=math.hypot(reading.deviation, deviation))
    if not reading.is_weight:
        return noisy
    energy = float(reading.value.double().square().sum())
    share = max(0.0, 1 - reading.value.numel() * deviation**2 / energy) if energy > 0 else 0.0
    return replace(noisy, value=reading.value * share, lower=reading.lower * share, upper=reading.upper * share)


def _widen(reading: _Reading, step: float) -> _Reading:
    return replace(reading, lower=reading.lower - step, upper=reading.upper + step)


def _extend_signs(reading: _Reading) -> _Reading:
    """A sign: any value of that sign; 0 was 0."""
    lower = torch.where(reading.value < 0, -math.inf, 0.0).to(reading.value.dtype)
    upper = torch.where(reading.value > 0, math.inf, 0.0).to(reading.value.dtype)
    return replace(reading, lower=lower, upper=upper)


def _smallest_shared(shared: Sequence[_Reading]) -> float:
    """What no value that was left out was larger than in magnitude."""
    reach = [torch.maximum(part.lower.abs(), part.upper.abs())[part.value != 0] for part in shared]
    return min((float(values.min()) for values in reach if len(values)), default=math.inf)


def _complete(reading: _Reading, *, smallest: float, largest: float, hidden: tuple[str, ...]) -> _Reading:
    """Values not shared were below the smallest shared, clipped ones at least the limit; a hidden tensor may be any."""
    if any(fnmatchcase(reading.name, pattern) for pattern in hidden):
        everything = torch.full_like(reading.value, math.inf)
        return replace(reading, lower=-everything, upper=everything)
    absent, clipped = reading.value == 0, reading.value.abs() >= largest
    lower = torch.where(absent, reading.lower.clamp(max=-smallest), reading.lower)
    upper = torch.where(absent, reading.upper.clamp(min=smallest), reading.upper)
    lower = torch.where(clipped & (reading.value < 0), -math.inf, lower)
    upper = torch.where(clipped & (reading.value > 0), math.inf, upper)
    return replace(reading, lower=lower, upper=upper)


def _bounds(readings: Sequence[_Reading]) -> dict[str, Bounds]:
    """The bounds of all, if any is not exact."""
    exact = all(torch.equal(reading.lower, reading.upper) for reading in readings)
    return {} if exact else {reading.name: (reading.lower, reading.upper) for reading in readings}
