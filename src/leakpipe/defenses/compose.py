"""Registered defences, and applying several in order."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from leakpipe.client.update import ClientUpdate
from leakpipe.defenses.clipping import clip_update, freeze_statistics
from leakpipe.defenses.compression import keep_largest, keep_signs, quantize, share_partly
from leakpipe.defenses.noise import add_gaussian_noise, add_laplace_noise, privatize_update
from leakpipe.defenses.steps import ELSEWHERE
from leakpipe.defenses.values import combine_values, named_values
from leakpipe.errors import LeakpipeError
from leakpipe.params.defenses import DefenseSteps
from leakpipe.registry import Registry

Defense = Callable[..., ClientUpdate]
Memory = dict[int, ClientUpdate]


def _without_chance(defense: Callable[[ClientUpdate, Any], ClientUpdate]) -> Defense:
    """A defence that draws nothing, called as those that do."""

    def applied(update: ClientUpdate, params: Any, **_generator: torch.Generator) -> ClientUpdate:
        return defense(update, params)

    return applied


DEFENSES: Registry[Defense] = Registry("defence")
DEFENSES.add("gaussian", add_gaussian_noise)
DEFENSES.add("laplace", add_laplace_noise)
DEFENSES.add("dp-gaussian", privatize_update)
DEFENSES.add("clip", _without_chance(clip_update))
DEFENSES.add("freeze-bn-statistics", _without_chance(freeze_statistics))
DEFENSES.add("top-k", _without_chance(keep_largest))
DEFENSES.add("quantize", quantize)
DEFENSES.add("sign", _without_chance(keep_signs))
DEFENSES.add("partial-sharing", _without_chance(share_partly))


@dataclass(frozen=True)
class Defended:
    """What a client shares, and what it remembers for its next round.

    Attributes:
        memory: By position of the step, what a step with error feedback has left out so far.
    """

    update: ClientUpdate
    memory: Memory = field(default_factory=dict)


def apply_defenses(
    update: ClientUpdate, steps: DefenseSteps, *, generator: torch.Generator, memory: Memory | None = None
) -> Defended:
    """Apply each of a client's steps to its update, in order; no step leaves it as it is.

    A step with error feedback (Seide 2014; Karimireddy 2019) is given the update plus what it left out in
    earlier rounds, and remembers what it leaves out now: shared + remembered = update + remembered before.

    Args:
        memory: What this function returned for the client's last round; None in the first.

    Raises:
        LeakpipeError: A step made a value that is not finite out of finite ones.
    """
    remembered: Memory = {}
    for position, step in enumerate(steps.root):
        if isinstance(step, ELSEWHERE):
            continue
        feedback = getattr(step, "error_feedback", False)
        if feedback and memory and position in memory:
            update = combine_values(update, memory[position], torch.add)
        shared = DEFENSES[step.kind](update, step, generator=generator)
        _check_finite(update, shared, step.kind)
        if feedback:
            remembered[position] = combine_values(update, shared, torch.sub)
        update = shared
    return Defended(update, remembered)


def _check_finite(before: ClientUpdate, after: ClientUpdate, kind: str) -> None:
    """Blame a step for what it made; training that diverged before it is the server's to report."""
    for name, value in named_values(after):
        if not torch.isfinite(value).all() and all(torch.isfinite(given).all() for _, given in named_values(before)):
            raise LeakpipeError(f"defence {kind!r} made values of {name!r} that are not finite (NaN or infinity)")
