"""Registered defences, and the application of several in order."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from leakpipe.client.update import ClientUpdate, combine_updates
from leakpipe.defenses.clipping import clip_update, freeze_statistics
from leakpipe.defenses.compression import keep_largest, keep_signs, quantize, share_partly
from leakpipe.defenses.flower import clip_as_flower, clip_in_first_round
from leakpipe.defenses.noise import add_gaussian_noise, add_laplace_noise, privatize_update
from leakpipe.defenses.nvflare import exclude_variables, share_by_sparse_vector, share_percentile
from leakpipe.defenses.steps import ELSEWHERE
from leakpipe.defenses.values import named_values
from leakpipe.errors import LeakpipeError
from leakpipe.params.defenses import DefenseSteps
from leakpipe.registry import Registry

Memory = dict[int, ClientUpdate]


@dataclass(frozen=True)
class Defense:
    """A step that acts on a client's update.

    Attributes:
        apply: `apply(update, params)` returns the update that is shared; its docstring states formula, source and
            guarantee. It changes no argument.
        draws: Whether it is random: `apply` then takes a `generator` as well.
    """

    apply: Callable[..., ClientUpdate]
    draws: bool = False


DEFENSES: Registry[Defense] = Registry("defence")
DEFENSES.add("gaussian", Defense(add_gaussian_noise, draws=True))
DEFENSES.add("laplace", Defense(add_laplace_noise, draws=True))
DEFENSES.add("dp-gaussian", Defense(privatize_update, draws=True))
DEFENSES.add("clip", Defense(clip_update))
DEFENSES.add("freeze-bn-statistics", Defense(freeze_statistics))
DEFENSES.add("top-k", Defense(keep_largest))
DEFENSES.add("quantize", Defense(quantize, draws=True))
DEFENSES.add("sign", Defense(keep_signs))
DEFENSES.add("partial-sharing", Defense(share_partly))
DEFENSES.add("percentile", Defense(share_percentile))
DEFENSES.add("svt", Defense(share_by_sparse_vector, draws=True))
DEFENSES.add("exclude-vars", Defense(exclude_variables))
DEFENSES.add("flower-fixed-clipping", Defense(clip_as_flower))
DEFENSES.add("flower-adaptive-clipping", Defense(clip_in_first_round))


@dataclass(frozen=True)
class Defended:
    """The update that a client shares in a round, and the memory that it keeps for the next one.

    Attributes:
        memory: What each step with error feedback has left out so far, by the position of the step.
    """

    update: ClientUpdate
    memory: Memory = field(default_factory=dict)


def apply_defenses(
    update: ClientUpdate, steps: DefenseSteps, *, generator: torch.Generator, memory: Memory | None = None
) -> Defended:
    """Applies the steps of a defence to a client's update, in order; without steps the update does not change.

    A step with error feedback (Seide 2014; Karimireddy 2019) acts on the update plus what it left out in earlier
    rounds, and remembers what it leaves out now: shared + remembered = update + remembered before.

    Args:
        generator: Draws the noise of all steps.
        memory: What this function returned for the client's last round; None in the first.

    Raises:
        LeakpipeError: A step turned finite values into values that are not finite.
    """
    remembered: Memory = {}
    for position, step in enumerate(steps.root):
        if isinstance(step, ELSEWHERE):
            continue
        feedback = getattr(step, "error_feedback", False)
        if feedback and memory and position in memory:
            update = combine_updates(torch.add, update, memory[position])
        defense = DEFENSES[step.kind]
        shared = defense.apply(update, step, **{"generator": generator} if defense.draws else {})
        _check_finite(update, shared, step.kind)
        if feedback:
            remembered[position] = combine_updates(torch.sub, update, shared)
        update = shared
    return Defended(update, remembered)


def _check_finite(before: ClientUpdate, after: ClientUpdate, kind: str) -> None:
    """Raises for values that the step made infinite; the server reports training that diverged before it."""
    for name, value in named_values(after):
        if not torch.isfinite(value).all() and all(torch.isfinite(given).all() for _, given in named_values(before)):
            raise LeakpipeError(f"defence {kind!r} made values of {name!r} that are not finite (NaN or infinity)")
