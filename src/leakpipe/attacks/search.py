"""One search: from a state of all that changes to the next, so that it can be stopped, saved and continued."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from leakpipe.attacks.candidates import Variables, start_candidates
from leakpipe.attacks.objective import Objective
from leakpipe.attacks.observation import Observation
from leakpipe.attacks.optimizers import initial_optimizer_state, take_step
from leakpipe.errors import LeakpipeError
from leakpipe.models.layers import count_classes
from leakpipe.models.state import Tensors
from leakpipe.params.attacks import AttackSettings

CURVE_POINTS = 100


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
        alive: Restarts that are still finite, shape (restarts,).
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
    alive: Tensor
    memory: Tensors
    reached: float = math.inf
    reference: float = math.inf
    curves: Mapping[str, list[float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    stopped: str = ""


class Search:
    """The inversion loop of one attack, one call of `advance` an iteration.

    Args:
        settings: As `leakpipe.attacks.observation.usable_settings` returns them.
        labels: Class indices of all candidates; None searches them together with the images.
        seed: Fixes the starts, and the orders that are averaged over.
    """

    def __init__(self, observation: Observation, settings: AttackSettings, labels: Tensor | None, *, seed: int) -> None:
        self.settings, self.labels, self.seed = settings, labels, seed
        self.objective = Objective(observation, settings, seed=seed)
        self.observation = observation
        self.shape = (observation.candidates, *observation.image_shape)
        self.classes = count_classes(observation.before)
        if labels is not None and not (0 <= int(labels.min()) <= int(labels.max()) < self.classes):
            raise LeakpipeError(f"labels: {labels.tolist()}, expected class indices below {self.classes}")
        self.variables = Variables(settings, self.shape, label_classes=0 if labels is not None else self.classes)

    def start(self) -> SearchState:
        """The state before the first iteration."""
        generator = torch.Generator().manual_seed(self.seed)
        images = start_candidates(self.observation, self.settings, generator)
        full, logits = images.flatten(1), None
        if self.labels is None:
            logits = torch.randn(len(images), self.shape[0] * self.classes, generator=generator)
            full = torch.cat([full, self.variables.label_shares(logits).flatten(1)], dim=1)
        variables = self.variables.from_images(images, logits, level=0)
        return SearchState(
            iteration=0,
            variables=variables,
            optimizer_state=initial_optimizer_state(self.settings, variables),
            optimizer_start=0,
            best=full,
            best_objective=torch.full((len(images),), math.inf, dtype=torch.float64),
            alive=torch.ones(len(images), dtype=torch.bool),
            memory=self.objective.engine.initial_memory(),
        )

    def advance(self, state: SearchState) -> SearchState:
        """Evaluate all restarts and take one step; a restart that is no longer finite stays where it is."""
        state = self._enter_level(state)
        iteration = state.iteration + 1
        consensus, memory = self._consensus(state), state.memory
        found = [self._nowhere(variables) for variables in state.variables]
        for restarts in state.alive.nonzero().flatten().split(self.objective.together):
            points, memory = self._evaluate(state.variables[restarts], memory, consensus)
            for restart, point in zip(restarts.tolist(), points, strict=True):
                found[restart] = point
        moved, optimizer_state = take_step(
            self.settings,
            state.variables,
            torch.stack([point.gradient for point in found]),
            state.optimizer_state,
            iteration=iteration,
            since_start=iteration - state.optimizer_start,
        )
        moved = self.variables.clamped(moved)
        reached = torch.stack([point.objective for point in found])
        remembered = [value.flatten(1).isfinite().all(dim=1) for value in optimizer_state.values() if value.dim() > 1]
        alive = state.alive & reached.isfinite() & torch.stack([moved.isfinite().all(dim=1), *remembered]).all(dim=0)
        notes = [
            f"Diverged: not finite at iteration {iteration} (restart {restart})."
            for restart in (state.alive & ~alive).nonzero().flatten().tolist()
        ]
        better = reached < state.best_objective
        return self._judge_progress(
            replace(
                state,
                iteration=iteration,
                variables=torch.where(alive[:, None], moved, state.variables),
                optimizer_state=optimizer_state,
                best=torch.where(better[:, None], torch.stack([point.candidates for point in found]), state.best),
                best_objective=torch.where(better, reached, state.best_objective),
                alive=alive,
                memory=memory,
                reached=float(reached.min()),
                curves=self._with_point(state.curves, iteration, found[int(reached.argmin())]),
                notes=(*state.notes, *notes),
            )
        )

    def result(self, state: SearchState) -> tuple[Tensor, Tensor, float]:
        """The attacked client's images and labels (class indices), and the objective, of the best restart."""
        winner = int(state.best_objective.argmin())
        size = math.prod(self.shape)
        own = slice(self.observation.client.images)  # an aggregate's candidates of other clients come after these
        images = state.best[winner, :size].view(self.shape)[own]
        if self.labels is not None:
            return images, self.labels[own], float(state.best_objective[winner])
        shares = state.best[winner, size:].view(-1, self.classes)[own]
        return images, shares.argmax(dim=1), float(state.best_objective[winner])

    def _evaluate(self, rows: Tensor, memory: Tensors, consensus: Tensor | None) -> tuple[list["_Point"], Tensors]:
        """Objective and gradient of up to `objective.together` restarts, and what the engine then remembers."""
        rows = rows.detach().requires_grad_()
        images, shares = self.variables.candidates(rows)
        labels = self.labels.expand(len(rows), *self.labels.shape) if self.labels is not None else shares
        assert labels is not None  # labels that are not given are searched
        evaluation = self.objective.evaluate_all(images, labels, memory=memory, consensus=consensus)
        (gradient,) = torch.autograd.grad(evaluation.objective.sum(), rows)
        reached = evaluation.objective.detach()
        parts = [images.detach().clamp(0, 1)] if shares is None else [images.detach().clamp(0, 1), shares.detach()]
        candidates = torch.cat([part.flatten(1) for part in parts], dim=1)
        finite = (reached.isfinite() & gradient.isfinite().all(dim=1)).tolist()
        points = [
            _Point(
                candidates[place],
                reached[place],
                gradient[place],
                {name: values[place] for name, values in evaluation.values.items()},
            )
            if finite[place]
            else self._nowhere(row)
            for place, row in enumerate(rows)
        ]
        return points, evaluation.memory if finite[0] else memory  # a memory is of one restart at a time

    def _nowhere(self, row: Tensor) -> "_Point":
        """The point of a restart that is not finite, or not evaluated: infinite, of no direction."""
        images = math.prod(self.shape) + (self.shape[0] * self.classes if self.labels is None else 0)
        nowhere = torch.tensor(math.inf, dtype=torch.float64)
        return _Point(row.new_zeros(images), nowhere, torch.zeros_like(row), {})

    def _enter_level(self, state: SearchState) -> SearchState:
        """Enlarge the candidates where the next level of the pyramid begins; the optimiser begins anew there."""
        levels = len(self.variables.heights)
        share = self.settings.iterations / levels
        level = min(levels - 1, int(state.iteration / share))
        before = min(levels - 1, int(max(0, state.iteration - 1) / share))
        if level == before:
            return state
        larger = self.variables.enlarged(state.variables, level=level)
        return replace(
            state,
            variables=larger,
            optimizer_state=initial_optimizer_state(self.settings, larger),
            optimizer_start=state.iteration,
        )

    def _consensus(self, state: SearchState) -> Tensor | None:
        if self.settings.group_weight == 0:
            return None
        with torch.no_grad():
            return self.variables.candidates(state.variables[state.alive])[0].mean(dim=0)

    def _judge_progress(self, state: SearchState) -> SearchState:
        settings, least = self.settings, float(state.best_objective.min())
        if not state.alive.any():
            return replace(state, stopped="diverged")
        if state.iteration >= settings.iterations:
            return replace(state, stopped="finished")
        if settings.tolerance == 0 or state.iteration % settings.patience:
            return state
        if math.isfinite(state.reference) and state.reference - least < settings.tolerance * abs(state.reference):
            return replace(state, stopped="converged")
        return replace(state, reference=least)

    def _with_point(
        self, curves: Mapping[str, list[float]], iteration: int, leader: "_Point"
    ) -> Mapping[str, list[float]]:
        every = max(1, self.settings.iterations // CURVE_POINTS)
        due = iteration % every == 0 or iteration in (1, self.settings.iterations)
        if not (due and leader.objective.isfinite()):
            return curves
        terms = {name: value.item() for name, value in leader.terms.items()}
        point = {"iteration": float(iteration), "objective": float(leader.objective), **terms}
        return {name: [*curves.get(name, []), value] for name, value in point.items()}


class _Point(NamedTuple):
    """One restart's candidates (flat, as `SearchState.best`), what they reach, and where that points."""

    candidates: Tensor
    objective: Tensor
    gradient: Tensor
    terms: Tensors
