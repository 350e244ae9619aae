"""Registered defences, and applying several in order."""

from collections.abc import Callable, Sequence

import torch

from leakpipe.defenses.gaussian import add_gaussian_noise
from leakpipe.federation.local import ClientUpdate
from leakpipe.params_defenses import GaussianParams
from leakpipe.registry import Registry

Defense = Callable[..., ClientUpdate]

DEFENSES: Registry[Defense] = Registry("defence")
DEFENSES.add("gaussian", add_gaussian_noise)


def apply_defenses(
    update: ClientUpdate, steps: Sequence[GaussianParams], *, generator: torch.Generator
) -> ClientUpdate:
    """Apply each step of a defence to the update, in order; no step leaves it as it is."""
    for step in steps:
        update = DEFENSES[step.kind](update, step, generator=generator)
    return update
