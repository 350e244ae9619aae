"""The interface of the objective's terms, and the part of candidates that they see."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from torch import Tensor

from leakpipe.attacks.engines.engine import Explained
from leakpipe.attacks.problem import Problem
from leakpipe.attacks.recovered_statistics import StatisticsByLayer
from leakpipe.models.layers import record_layer_inputs
from leakpipe.models.state import measure_statistics

LayerInputs = dict[str, list[Tensor]]


@dataclass(frozen=True)
class Candidates:
    """The candidates of one restart, and what terms share of them.

    Attributes:
        images: Shape (images, channels, height, width).
        network_images: The images that the simulated client trains on.
        explained: How they explain the update.
        consensus: Mean of all restarts' candidates, where there is a group term.
        recorded: Convolutions whose inputs `forward` records.
    """

    problem: Problem
    images: Tensor
    network_images: Tensor
    explained: Explained
    consensus: Tensor | None = None
    recorded: Sequence[str] = ()

    @cached_property
    def forward(self) -> tuple[StatisticsByLayer, LayerInputs]:
        """Batch statistics and recorded layer inputs of one forward pass through the global model."""
        problem = self.problem
        frozen = problem.assumed_training.batch_norm == "frozen"
        with record_layer_inputs(problem.model.module, self.recorded) as inputs:
            statistics = measure_statistics(problem.model, self.network_images, frozen=frozen)
        return statistics, inputs


class Term(Protocol):
    """One summand of the objective: its weight times its value.

    Attributes:
        name: What the curves and tables call it.
        weight: At least 0.
    """

    name: str
    weight: float

    def value(self, candidates: Candidates) -> Tensor:
        """A scalar that can be differentiated in the candidates' images and labels."""


@dataclass
class SimpleTerm:
    """A term that is a function of the candidates."""

    name: str
    weight: float
    function: Callable[[Candidates], Tensor]

    def value(self, candidates: Candidates) -> Tensor:
        """The function's value."""
        return self.function(candidates)
