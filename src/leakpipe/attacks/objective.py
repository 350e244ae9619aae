"""The objective that an attack minimises: a list of weighted terms over candidates."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from leakpipe.attacks.engines.choice import choose_engine
from leakpipe.attacks.engines.engine import Explained
from leakpipe.attacks.observation import Observation
from leakpipe.attacks.problem import Problem
from leakpipe.attacks.terms.batch_statistics import BatchStatisticsTerm
from leakpipe.attacks.terms.images import image_terms
from leakpipe.attacks.terms.row_space import RowSpaceTerm
from leakpipe.attacks.terms.term import Candidates, SimpleTerm, Term
from leakpipe.errors import LeakpipeError
from leakpipe.models.batchnorm import BatchStatistics
from leakpipe.models.state import Tensors
from leakpipe.params.attack_settings import AttackSettings


@dataclass(frozen=True)
class Evaluation:
    """The objective at one point, or at those of several restarts.

    Attributes:
        objective: Weighted sum of the terms, float64, a scalar or of shape (restarts,).
        values: Each term unweighted, by name, of the same shape, without a graph.
        memory: What the engine remembers from here on.
    """

    objective: Tensor
    values: Tensors
    memory: Tensors

    @property
    def terms(self) -> dict[str, float]:
        """`values` of one point as numbers."""
        return {name: value.item() for name, value in self.values.items()}


class Objective:
    """The objective of one attack on one observation.

    Over candidates x̂ in [0, 1] and their labels ŷ, with the weights of the settings,

        objective · D(ΔŴ(x̂, ŷ), ΔW) + batch_norm · BN(x̂) + row_space · R(x̂) + total_variation · TV(x̂) [· D] + l2 · ‖x̂‖₂
        + prior · ‖x̂ − prior‖² + group · ‖x̂ − mean over restarts‖²

    where ΔŴ is `local_update` on the candidates: the update that the client would have sent for them (Hatamizadeh
    2023). Where the attacker knows the defence, ΔW is the result of `adapt`; for an aggregate, x̂ are the candidates of
    all clients and ΔŴ is averaged as the server does.

    Args:
        settings: As `leakpipe.attacks.observation.usable_settings` returns them.
        seed: Fixes the orders that are averaged over where they are unknown.

    Attributes:
        terms: The summands, in the order in which they are summed.
        notes: What a reader must know of the terms and the engine, in sentences.

    Raises:
        LeakpipeError: Nothing is left to match.
    """

    def __init__(self, observation: Observation, settings: AttackSettings, *, seed: int) -> None:
        self.problem = Problem(observation, settings, seed=seed)
        self.engine, fallback = choose_engine(self.problem)
        self.statistics = BatchStatisticsTerm(self.problem) if settings.batch_norm_weight > 0 else None
        self.rows = RowSpaceTerm(self.problem) if settings.row_space_weight > 0 else None
        self._check_something_is_left()
        self.terms: list[Term] = []
        if self.problem.explains:
            distance = SimpleTerm(
                "update_distance", settings.objective_weight, lambda c: cast(Tensor, c.explained.distance)
            )
            self.terms.append(distance)
        if self.statistics is not None:
            self.terms.append(self.statistics)
        if self.rows is not None and self.rows.spaces:
            self.terms.append(self.rows)
        self.terms += image_terms(self.problem)
        of_terms = [note for term in (self.rows, self.statistics) if term is not None for note in term.notes]
        self.notes = [*self._notes_of_the_update(), *of_terms, *fallback]

    @property
    def matched(self) -> str | None:
        """The term by which candidates explain the update: its distance, else that to the row spaces of its weights.

        Batch statistics count only where the update has nothing else: they are explained long before any image is.
        """
        names = {term.name for term in self.terms}
        alone = [] if self.problem.observation.has_signal else ["batch_statistics"]
        return next((name for name in ("update_distance", "row_space", *alone) if name in names), None)

    @property
    def together(self) -> int:
        """The number of restarts that `evaluate_all` takes at once."""
        measures_apart = self.statistics is not None and self.problem.settings.batch_norm == "frozen"
        return 1 if self.rows is not None or measures_apart else self.engine.together

    def evaluate_all(
        self, images: Tensor, labels: Tensor, *, memory: Tensors | None = None, consensus: Tensor | None = None
    ) -> Evaluation:
        """`evaluate` of at most `together` restarts.

        Args:
            images: Shape (restarts, images, channels, height, width).
            labels: Of each restart, shape (restarts, …).
            memory: As `evaluate`.
            consensus: As `evaluate`.
        """
        if len(images) == 1:
            one = self.evaluate(images[0], labels[0], memory=memory, consensus=consensus)
            values = {name: value[None] for name, value in one.values.items()}
            return Evaluation(one.objective[None], values, one.memory)
        inputs = self.engine.network_images(images)
        distances, measured = self.engine.explain_together(inputs, labels)
        means = {name: layer.mean for name, layer in measured.items()}
        variances = {name: layer.variance for name, layer in measured.items()}

        def of_one(
            images: Tensor, inputs: Tensor, distance: Tensor, means: Tensors, variances: Tensors
        ) -> tuple[Tensor, Tensors]:
            statistics = {name: BatchStatistics(mean, variances[name]) for name, mean in means.items()}
            explained = Explained(distance, statistics)
            return self._sum(Candidates(self.problem, images, inputs, explained, consensus))

        objectives, terms = torch.vmap(of_one)(images, inputs, distances, means, variances)
        return Evaluation(objectives, terms, memory or {})

    def evaluate(
        self, images: Tensor, labels: Tensor, *, memory: Tensors | None = None, consensus: Tensor | None = None
    ) -> Evaluation:
        """The objective of one restart's candidates.

        Args:
            images: Shape (images, channels, height, width); may require a gradient.
            labels: As in `leakpipe.client.batches.Batch`; may require a gradient.
            memory: The engine's, of the last evaluation.
            consensus: Mean of all restarts' candidates, where there is a group term.
        """
        inputs = self.engine.network_images(images)
        explained = self.engine.explain(inputs, labels, self.engine.initial_memory() if memory is None else memory)
        recorded = list(self.rows.spaces) if self.rows is not None else ()
        objective, values = self._sum(Candidates(self.problem, images, inputs, explained, consensus, recorded))
        return Evaluation(objective, values, explained.memory)

    def _sum(self, candidates: Candidates) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective and its terms."""
        found = [(term, term.value(candidates)) for term in self.terms]
        objective = torch.stack([term.weight * value.double() for term, value in found]).sum()
        return objective, {term.name: value.detach() for term, value in found}

    def _check_something_is_left(self) -> None:
        usable = self.statistics is not None and self.statistics.usable
        if not (self.problem.observation.has_signal or usable):
            raise LeakpipeError(
                "the update is all zero and no recovered variance is positive: nothing is left to attack"
            )
        if not (self.problem.explains or self.statistics is not None or (self.rows is not None and self.rows.spaces)):
            raise LeakpipeError(
                "no convolution has fewer positions than channels, or noise drowns all that have: the row-space term, "
                "and so the attack, has nothing to match"
            )

    def _notes_of_the_update(self) -> list[str]:
        notes, adapted = [], self.problem.adapted_update
        if adapted.left:
            notes.append(f"What each client's {' and '.join(adapted.left)} did before the average was not undone.")
        drowned = len(self.problem.observation.update.weights) - len(adapted.weights)
        if drowned:
            notes.append(f"{drowned} tensors of the update, which the defence leaves nothing of, were not compared.")
        return notes
