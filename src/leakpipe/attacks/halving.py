"""Successive halving of restarts: many short searches, fewer longer ones, one long one.

Whether a start leads to the true images or to a mosaic of them shows early, and there is no telling before. So all
restarts are searched for a while, then the better ones for longer, and so on, each part at the same cost (Jamieson and
Talwalkar: Non-stochastic Best Arm Identification, 2016). In each part the step falls from its full size to 0 once more:
such warm restarts lead on where one long fall gets caught (Loshchilov and Hutter: SGDR, 2017).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from leakpipe.params.attack_settings import AttackSettings


@dataclass(frozen=True)
class Rung:
    """One part of a search.

    Attributes:
        start: Iterations before it.
        iterations: Of its own.
        survivors: Restarts that take part: the best of those before.
    """

    start: int
    iterations: int
    survivors: int


def plan_rungs(settings: AttackSettings) -> Sequence[Rung]:
    """The parts of a search, `settings.rungs` of them unless there are fewer iterations.

    From `settings.restarts` the survivors fall geometrically to 1. Lengths sum to `settings.iterations`, and are the
    inverse of the survivors, rounded.
    """
    count = min(settings.rungs, settings.iterations)
    if count == 1:
        return [Rung(0, settings.iterations, settings.restarts)]
    survivors = [round(settings.restarts ** (1 - place / (count - 1))) for place in range(count)]
    total, ends = sum(1 / each for each in survivors), [0]
    for place in range(1, count):
        share = sum(1 / each for each in survivors[:place]) / total
        ends.append(min(max(ends[-1] + 1, round(share * settings.iterations)), settings.iterations - (count - place)))
    ends.append(settings.iterations)
    return [Rung(ends[place], ends[place + 1] - ends[place], survivors[place]) for place in range(count)]
