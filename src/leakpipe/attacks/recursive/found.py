"""The maps that a descent through the network recovers, and how each came out."""

import math
from dataclasses import dataclass, field

from torch import Tensor

from leakpipe.attacks.recursive.below import Arrived
from leakpipe.attacks.recursive.layer import Layer
from leakpipe.attacks.recursive.masks import guess_mask

NULL_SPACE, REFINED = "null space", "refined"  # by all of the weight's gradient (`leakpipe.attacks.recursive.refine`)


@dataclass(frozen=True)
class LayerReport:
    """The outcome for one map.

    Attributes:
        layer: The convolution that reads it.
        how: "null space", "gradient" (equations of the weight's gradient), "least squares", "forward pass" (of the
            null space's map of the convolution before), or `REFINED`: a null space's map, refined.
        gap: Ratio of the eigenvalue behind the null space to the one inside; None where there is no null space.
        residual: Relative residual of the equations.
        negative: Length of the solution's entries below 0, where maps have none, relative to its own.
        doubtful: Units of the map whose values do not tell whether they are on.
        noisy: Whether noise is no small part of the equations, whose residual then tells its size and no more.
    """

    layer: str
    how: str
    gap: float | None
    residual: float
    negative: float
    doubtful: int
    noisy: bool = False

    @property
    def error(self) -> float:
        """Rough relative error of the map.

        Of a null space, what was measured under noise at gaps of 3 to 4000; of equations without much noise, the
        residual. All at least what half of the units tell that are off and scatter around 0: equations that leave
        unknowns free have no residual.
        """
        measured = 0.0 if self.noisy else self.residual
        if self.how == NULL_SPACE:
            assert self.gap is not None
            measured = max(1 / self.gap, 0.3 / math.sqrt(self.gap))
        return max(measured, 2 * self.negative)


def report_map(
    layer: Layer, how: str, raw: Tensor, *, residual: float, gap: float | None = None, shifted: bool = False
) -> LayerReport:
    """Returns the report on a solved map, whose entries below 0 are not yet taken away.

    Args:
        layer: That reads the map.
        how: As in the report, like `residual` and `gap`.
        raw: The map, not clamped.
        residual: Relative.
        gap: None where there is no null space.
        shifted: Whether channels were shifted until few entries are below 0, which then do not tell the error.
    """
    negative = float(raw.clamp_max(0).norm() / raw.norm())
    noisy = layer.is_rounded and not shifted
    return LayerReport(layer.name, how, gap, residual, negative, guess_mask(raw).doubtful, noisy)


@dataclass
class Descent:
    """The recovered maps.

    Attributes:
        maps: What convolutions read, by their names, nonnegative.
        raw: The same, not clamped: entries below 0 tell the noise.
        reports: One for each of them.
        arriving: Gradient of the loss at the lowest block's input that was recovered; None where none was.
        arrived: Gradients at the lowest block whose inner map was recovered; None where none was.
        stopped: Why the first of the missing maps is missing, in a sentence; empty where none is.
    """

    maps: dict[str, Tensor] = field(default_factory=dict)
    raw: dict[str, Tensor] = field(default_factory=dict)
    reports: list[LayerReport] = field(default_factory=list)
    arriving: Tensor | None = None
    arrived: Arrived | None = None
    stopped: str = ""

    def report_of(self, convolution: str) -> LayerReport:
        """Returns the report on the map that a convolution reads."""
        return next(report for report in self.reports if report.layer == convolution)

    def keep(self, report: LayerReport, raw: Tensor) -> None:
        """Add a map."""
        self.maps[report.layer], self.raw[report.layer] = raw.clamp_min(0), raw
        self.reports.append(report)
