"""The state of a search: all that changes from one iteration to the next, as it is saved and continued."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from leakpipe.models.state import Tensors


@dataclass(frozen=True, kw_only=True)
class SearchState:
    """All that changes from one iteration to the next.

    Attributes:
        iteration: Steps taken.
        variables: Free values of every restart, shape (restarts, variables): images, then labels where these
            are searched too.
        optimizer_state: What the optimizer remembers.
        optimizer_start: Iteration at which it last began anew.
        best: Variables as images in [0, 1] at full size and labels, at each restart's least objective.
        best_objective: Float64 of shape (restarts,); infinite before the first evaluation.
        best_distance: Distance to the observation there (`Objective.matched`), float64 of shape (restarts,).
        start_distance: The same at each restart's start.
        improved: Restarts whose best is no longer their start, shape (restarts,).
        alive: Restarts that are still finite and not dropped for better ones, shape (restarts,).
        reached: Least objective of this iteration.
        memory: What the engine remembers; most engines remember nothing.
        reference: Least objective when progress was last asked for.
        curves: Value of every term at `curves["iteration"]`, of the restart with the least objective.
        notes: What a reader must know, in sentences.
        stopped: "" while running, then "finished", "converged" or "diverged".
    """

    iteration: int
    variables: Tensor
    optimizer_state: Mapping[str, Tensor]
    optimizer_start: int
    best: Tensor
    best_objective: Tensor
    best_distance: Tensor
    start_distance: Tensor
    improved: Tensor
    alive: Tensor
    memory: Tensors
    reached: float = math.inf
    reference: float = math.inf
    curves: Mapping[str, list[float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    stopped: str = ""


class Points(NamedTuple):
    """The points that all restarts reach; one that is not finite, or not evaluated, reaches infinity and has no slope.

    Attributes:
        candidates: As `SearchState.best`.
        objective: Float64 of shape (restarts,).
        gradient: Of the objective, shape (restarts, variables).
        terms: Each term by name, float64 of shape (restarts,).
        memory: What the engine then remembers.
    """

    candidates: Tensor
    objective: Tensor
    gradient: Tensor
    terms: Tensors
    memory: Tensors


def kind_of(tensor: Tensor) -> tuple[torch.dtype, torch.Size]:
    """Returns dtype and shape, which a state that is read from a file must share with the search's own."""
    return tensor.dtype, tensor.shape


def kinds_of(tensors: Mapping[str, Tensor], *, history: bool = False) -> dict[str, object]:
    """Returns dtypes and shapes by name; without the second dimension of a history, whose length grows."""
    return {
        name: (each.dtype, each.shape[::2]) if history and each.dim() == 3 else kind_of(each)
        for name, each in tensors.items()
    }
