"""The adapted update: an update as an attacker reads it who knows the defence (Kerckhoffs's principle).

A naive attack takes the shared values for the trained ones. An attacker who knows the defence's steps undoes them
backwards, as far as possible (`adapt`):

- Noise is alike on all values, so all count alike (the likeliest candidate under equal noise is nearest in the plain
  norm): the weighting of tensors that an attack may have is off. Its deviation is known, or estimated from the update
  itself; the noisier a batch statistic, the less it counts.
- A clipped value was at or beyond the limit. Batch statistics are matched to the candidate's own, moved into that
  interval; weight differences to the middle between that and the value shared (moving all the way left too little to
  go by). A value that was left out is read as the 0 that was sent: it was below the smallest one shared, but most are
  far below, and a candidate that was free within such a wide interval was led less.
- The sparse vector technique (`svt`) is noise of known deviation on the weights that were drawn; statistics are read as
  sent, clipped so far that they say that nothing moved.
- `clip` and Flower's clipping change no direction, which is all that a cosine sees; withheld statistics and removed
  tensors are nothing to undo. Nor is rounding (`quantize`), which is right on average: where statistics counted less
  for its error, the attack got less, since most values are small and their error is far below that of an average
  value. Nor is `sign`: the largest inner product with the signs is the estimate from single bits (Plan and Vershynin
  2013), and taking each sign for half a line gave less.
- Under `secure-aggregation` candidates of all clients are searched together (`leakpipe.attacks.objective`). The mean's
  noise is that of the clients, averaged; the other steps of each client are not undone.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial

import torch
from torch import Tensor

from leakpipe.client.update import ClientUpdate
from leakpipe.defenses.nvflare import release_budget
from leakpipe.models.state import Tensors
from leakpipe.params.defenses import (
    DefenseStep,
    DefenseSteps,
    DpGaussianParams,
    GaussianParams,
    LaplaceParams,
    PartialSharingParams,
    PercentileParams,
    SignParams,
    SvtParams,
)

Bounds = tuple[Tensor, Tensor]
ROUNDING = 1e-6  # relative, of 32-bit floats
NORMAL_MEDIAN = 0.6745  # median magnitude of a standard normal value
NOISE = GaussianParams | LaplaceParams | DpGaussianParams
NOTHING_TO_UNDO = ("freeze-bn-statistics", "exclude-vars", "secure-aggregation")


@dataclass(frozen=True)
class Adapted:
    """An update as an attacker reads it.

    Attributes:
        weights: Weight differences as shared; without those that tell nothing.
        equal_noise: Whether noise of the same deviation is on all of `weights`.
        weight_bounds: Bounds of each trained value of `weights`; empty where all are exact.
        statistic_bounds: The same of the differences of running statistics.
        statistic_noise: Standard deviation of the noise on each difference of running statistics; empty without.
        left: Kinds of the steps that are not undone because other updates are averaged in.
    """

    weights: Tensors
    equal_noise: bool
    weight_bounds: Mapping[str, Bounds]
    statistic_bounds: Mapping[str, Bounds]
    statistic_noise: Mapping[str, float]
    left: tuple[str, ...] = ()


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
        """Returns whether anything is known of it: at least one value is bounded."""
        return bool((self.lower.isfinite() | self.upper.isfinite()).any())


def adapt(update: ClientUpdate, defense: DefenseSteps, *, shares: Sequence[float] = (1.0,)) -> Adapted:
    """Undoes a known defence as far as possible.

    If nothing is left of any weight difference, they are returned as they are: the attack is then the naive one.

    Args:
        update: As shared.
        defense: Steps that every client applied, in order.
        shares: Weight of each client in the update: of one, or of all in an aggregate.
    """
    parts = ((True, update.weights), (False, update.statistics))
    readings = [_Reading(name, kind, v, v, v) for kind, part in parts for name, v in part.items()]
    undone = [step for step in defense.root if len(shares) == 1 or isinstance(step, NOISE)]
    for step in reversed(undone):
        if isinstance(step, SignParams):
            break  # no magnitude is left to undo anything before it by
        undo = _undo(step, readings, update.steps, averaging=math.hypot(*shares))
        readings = [undo(reading) for reading in readings]
    weights = [reading for reading in readings if reading.is_weight and reading.tells]
    statistics = [reading for reading in readings if not reading.is_weight]
    noise = {reading.name: reading.deviation for reading in statistics}
    return Adapted(
        weights={reading.name: reading.value for reading in weights} or update.weights,
        equal_noise=any(reading.deviation > 0 for reading in weights),
        weight_bounds=_bounds(weights),
        statistic_bounds=_bounds(statistics),
        statistic_noise=noise if any(noise.values()) else {},
        left=tuple(step.kind for step in defense.root if step not in undone and step.kind not in NOTHING_TO_UNDO),
    )


def move_into(bounds: Mapping[str, Bounds], candidate: Tensors) -> dict[str, Tensor]:
    """The possible trained values nearest to the candidate's own, without a graph."""
    return {name: torch.clamp(candidate[name].detach(), *between) for name, between in bounds.items()}


def noise_deviation(values: Sequence[Tensor], step: NOISE, *, averaging: float = 1.0) -> float:
    """Standard deviation of a step's noise: known, or estimated where it depends on the client's data.

    The estimate is the median magnitude over that of unit noise (Donoho and Johnstone 1994): most values of an
    update are much smaller than the percentile that scales its noise. It is too large where there is little noise.

    Args:
        values: Tensors that hold the noise.
        averaging: Deviation of the mean of all clients' noises, in units of one client's.
    """
    if isinstance(step, DpGaussianParams):
        return averaging * step.noise_multiplier * step.clip_norm
    if isinstance(step, LaplaceParams) and step.scale is not None:
        return averaging * math.sqrt(2) * step.scale
    if (step.sigma0 if isinstance(step, GaussianParams) else step.scale0) == 0:
        return 0.0
    median = torch.cat([value.flatten().double().abs() for value in values]).median().item()
    return median / NORMAL_MEDIAN if isinstance(step, GaussianParams) else math.sqrt(2) * median / math.log(2)


def _undo(
    step: DefenseStep, shared: Sequence[_Reading], local_steps: int, *, averaging: float
) -> Callable[[_Reading], _Reading]:
    """The inverse of one step, on any tensor of what it shared."""
    if isinstance(step, NOISE):
        targets = "all" if isinstance(step, DpGaussianParams) else step.targets
        noisy = [part for part in shared if targets == "all" or part.is_weight == (targets == "weights")]
        deviation = noise_deviation([part.value for part in noisy], step, averaging=averaging)
        names = {part.name for part in noisy}
        return lambda reading: _blur(reading, deviation) if reading.name in names else reading
    if isinstance(step, PartialSharingParams):
        return partial(_unclip, largest=step.clip * local_steps * (1 - ROUNDING), hidden=step.exclude)
    if isinstance(step, PercentileParams):
        return partial(_unclip, largest=step.gamma * local_steps * (1 - ROUNDING), hidden=())
    if isinstance(step, SvtParams):
        deviation = _release_deviation(shared, step, local_steps)
        return lambda reading: _blur(reading, deviation) if reading.is_weight else reading
    return lambda reading: reading


def _blur(reading: _Reading, deviation: float) -> _Reading:
    return replace(reading, deviation=math.hypot(reading.deviation, deviation))


def _release_deviation(shared: Sequence[_Reading], step: SvtParams, local_steps: int) -> float:
    """Standard deviation of the noise on what the sparse vector technique shares."""
    sent = math.ceil(step.fraction * sum(part.value.numel() for part in shared))
    return math.sqrt(2) * local_steps * 2 * step.gamma * sent / release_budget(step, sent)


def _unclip(reading: _Reading, *, largest: float, hidden: tuple[str, ...]) -> _Reading:
    """Clipped values were at least the limit; a hidden tensor may be any."""
    if any(fnmatchcase(reading.name, pattern) for pattern in hidden):
        everything = torch.full_like(reading.value, math.inf)
        return replace(reading, lower=-everything, upper=everything)
    clipped = reading.value.abs() >= largest
    lower = torch.where(clipped & (reading.value < 0), -math.inf, reading.lower)
    upper = torch.where(clipped & (reading.value > 0), math.inf, reading.upper)
    return replace(reading, lower=lower, upper=upper)


def _bounds(readings: Sequence[_Reading]) -> dict[str, Bounds]:
    """The bounds of all, if any is not exact."""
    exact = all(torch.equal(reading.lower, reading.upper) for reading in readings)
    return {} if exact else {reading.name: (reading.lower, reading.upper) for reading in readings}
