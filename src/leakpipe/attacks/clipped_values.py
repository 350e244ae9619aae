"""Gradients whose values a client clipped to a limit, as one step of SGD shows them.

A value within the limit is known, and one at the limit was anything at or beyond it. How large the candidate's gradient
is as a whole depends on how sure the network is of its class, which a search finds last: both are therefore compared in
units of their own, the limit and the quantile of the candidate's absolute values that has as many of them within.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from leakpipe.attacks.adaptive import ROUNDING, Bounds
from leakpipe.attacks.rounding import spacing
from leakpipe.models.state import Tensors

SOFTENING = 0.3  # in units of the limit
LEAST_WITHIN = 0.1  # with fewer values within, the candidate's unit would be too small to have a slope


@dataclass(frozen=True)
class ClippedValues:
    """The gradients before they were clipped, as far as the update tells, as plain SGD would have shared them.

    Attributes:
        bounds: Of each value in units of the limit; infinite beyond it.
        within: Share of the values other than 0 that are within the limit, at least `LEAST_WITHIN`.
    """

    bounds: Mapping[str, Bounds]
    within: float

    def compare(self, candidate: Tensors) -> tuple[Tensors, Tensors]:
        """Returns what is compared of a candidate's differences, and what they should be, without a graph.

        Both are softened, x/(|x| + 0.3) in these units, so that the few largest values do not decide alone. What a
        candidate should have is its own value moved into the bounds.

        Args:
            candidate: Differences that plain SGD makes of it; the first result is differentiable in them.
        """
        unit = _quantile([value.detach() for value in candidate.values()], self.within)
        mine = {name: value / unit for name, value in candidate.items()}
        theirs = {name: torch.clamp(value.detach(), *self.bounds[name]) for name, value in mine.items()}
        return _soften(mine), _soften(theirs)


def read_clipped(changes: Tensors, weights: Tensors, limit: float) -> ClippedValues | None:
    """Returns what an update of gradients clipped by value tells of them; None where no value reaches the limit.

    Differences of rounded weights are off by up to half the distance of two such numbers, in trained networks more than
    the limit itself.

    Args:
        changes: As plain SGD would have made them.
        weights: Where the client began.
        limit: Of a difference.
    """
    bounds, clipped, within = {}, 0, 0
    for name, change in changes.items():
        error = spacing(weights[name]) / 2 + ROUNDING * limit
        below, above = change - error <= -limit, change + error >= limit
        bounds[name] = (
            torch.where(below, -torch.inf, change / limit),
            torch.where(above, torch.inf, change / limit),
        )
        clipped += int((below | above).sum())
        within += int(((change != 0) & ~below & ~above).sum())
    return ClippedValues(bounds, max(LEAST_WITHIN, within / (within + clipped))) if clipped else None


def _soften(tensors: Tensors) -> Tensors:
    return {name: value / (value.abs() + SOFTENING) for name, value in tensors.items()}


def _quantile(tensors: list[Tensor], share: float) -> Tensor:
    """Returns the absolute value that a share of those other than 0 are at or below."""
    values = torch.cat([value.abs().flatten() for value in tensors])
    values = values[values > 0]
    if not len(values):
        return torch.ones_like(values.sum())
    return values.kthvalue(max(1, round(share * len(values)))).values
