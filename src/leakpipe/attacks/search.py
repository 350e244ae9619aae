"""One search: from a state of all that changes to the next, so that it can be stopped, saved and continued."""

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from leakpipe.attacks.candidates import Variables, start_candidates
from leakpipe.attacks.halving import plan_rungs
from leakpipe.attacks.objective import Objective
from leakpipe.attacks.observation import Observation
from leakpipe.attacks.optimizers import initial_optimizer_state, take_step
from leakpipe.attacks.search_state import Points, SearchState, kind_of, kinds_of
from leakpipe.errors import LeakpipeError
from leakpipe.models.layers import count_classes
from leakpipe.params.attack_settings import AttackSettings
from leakpipe.randomness import derive_seed

CURVE_POINTS = 100
AVERAGE, AVERAGE_EVERY = "average", 10  # its name in the optimizer's state; iterations between its evaluations


class Search:
    """The inversion loop of one attack, one call of `advance` an iteration.

    Args:
        settings: As `leakpipe.attacks.observation.usable_settings` returns them.
        labels: Class indices of all candidates, or 0 or 1 for each class; None searches one class for each, together
            with the images.
        seed: Fixes the starts, and the orders that are averaged over.
    """

    def __init__(self, observation: Observation, settings: AttackSettings, labels: Tensor | None, *, seed: int) -> None:
        self.settings, self.labels, self.seed = settings, labels, seed
        self.objective = Objective(observation, settings, seed=seed)
        self.observation = observation
        self.shape = (observation.candidates, *observation.image_shape)
        self.rungs = plan_rungs(settings)
        self.classes = count_classes(observation.before)
        single = labels is not None and not labels.is_floating_point()
        if single and labels is not None and not (0 <= int(labels.min()) <= int(labels.max()) < self.classes):
            raise LeakpipeError(f"labels: {labels.tolist()}, expected class indices below {self.classes}")
        self.variables = Variables(settings, self.shape, label_classes=0 if labels is not None else self.classes)

    def start(self) -> SearchState:
        """The state before the first iteration."""
        generator = torch.Generator().manual_seed(self.seed)
        images = start_candidates(self.observation, self.settings, generator)
        full, logits = images.flatten(1), None
        if self.labels is None:
            shape = (len(images), self.shape[0] * self.classes)
            logits = torch.randn(shape, generator=generator, device="cpu").to(images.device)
            full = torch.cat([full, self.variables.label_shares(logits).flatten(1)], dim=1)
        variables = self.variables.from_images(images, logits, level=0)
        infinite = torch.full((len(images),), math.inf, dtype=torch.float64, device=images.device)
        return SearchState(
            iteration=0,
            variables=variables,
            optimizer_state=self._start_optimizer(variables),
            optimizer_start=0,
            best=full,
            best_objective=infinite,
            best_distance=infinite,
            start_distance=infinite,
            improved=torch.zeros_like(infinite, dtype=torch.bool),
            alive=torch.ones_like(infinite, dtype=torch.bool),
            memory=self.objective.engine.initial_memory(),
        )

    def fits(self, state: SearchState) -> bool:
        """Returns whether a state that was read from a file can be of this search: its tensors have the right kinds."""
        start, variables, last = self.start(), state.variables, self.settings.iterations
        if variables.dim() != 2 or variables.shape[1] not in self.variables.lengths:
            return False
        own = ("best", "best_objective", "best_distance", "start_distance", "improved", "alive")
        begun = self._start_optimizer(variables)
        return (
            (variables.dtype, len(variables)) == (start.variables.dtype, len(start.variables))
            and all(kind_of(getattr(state, name)) == kind_of(getattr(start, name)) for name in own)
            and kinds_of(state.memory) == kinds_of(start.memory)
            and kinds_of(state.optimizer_state, history=True) == kinds_of(begun, history=True)
            and len({value.shape for value in state.optimizer_state.values() if value.dim() == 3}) < 2
            and state.optimizer_start <= state.iteration <= last
            and (state.iteration < last or state.stopped != "")
        )

    def advance(self, state: SearchState) -> SearchState:
        """Evaluate all restarts and take one step; a restart that is no longer finite stays where it is."""
        state = self._enter_level(self._enter_rung(state))
        iteration = state.iteration + 1
        rung = [each for each in self.rungs if each.start < iteration][-1]
        since_start = iteration - state.optimizer_start
        found = self._evaluate(state, state.variables)
        moved, optimizer_state = take_step(
            self.settings,
            state.variables,
            found.gradient,
            state.optimizer_state,
            iteration=iteration - rung.start,
            iterations=rung.iterations,
            since_start=since_start,
        )
        moved = self.variables.clamped(moved)
        if AVERAGE in state.optimizer_state:
            average = state.optimizer_state[AVERAGE].lerp(moved, 1 - self.settings.averaging)
            optimizer_state = {**optimizer_state, AVERAGE: average}
        reached = found.objective
        remembered = [value.flatten(1).isfinite().all(dim=1) for value in optimizer_state.values() if value.dim() > 1]
        alive = state.alive & reached.isfinite() & torch.stack([moved.isfinite().all(dim=1), *remembered]).all(dim=0)
        notes = [
            f"Diverged: not finite at iteration {iteration} (restart {restart})."
            for restart in (state.alive & ~alive).nonzero().flatten().tolist()
        ]
        distance = self._distance(found)
        state = self._keep_better(state, found, iteration)
        if AVERAGE in optimizer_state and since_start % AVERAGE_EVERY == 0:
            unbiased = optimizer_state[AVERAGE] / (1 - self.settings.averaging**since_start)
            with torch.no_grad():
                state = self._keep_better(state, self._evaluate(state, unbiased), iteration)
        return self._judge_progress(
            replace(
                state,
                iteration=iteration,
                variables=torch.where(alive[:, None], moved, state.variables),
                optimizer_state=optimizer_state,
                start_distance=distance if state.iteration == 0 else state.start_distance,
                alive=alive,
                memory=found.memory,
                reached=float(reached.min()),
                curves=self._with_point(state.curves, iteration, found),
                notes=(*state.notes, *notes),
            )
        )

    def result(self, state: SearchState) -> tuple[Tensor, Tensor, float]:
        """Images and labels (class indices) of all candidates, and the objective, of the best restart."""
        winner = int(state.best_objective.argmin())
        size = math.prod(self.shape)
        images, shares = state.best[winner, :size].view(self.shape), state.best[winner, size:].view(-1, self.classes)
        labels = shares.argmax(dim=1) if self.labels is None else self.labels
        return images, labels, float(state.best_objective[winner])

    def explained(self, state: SearchState) -> float | None:
        """The share of its start's distance to the observation that the best restart removed, in [0, 1].

        Returns:
            0 where the best iterate is the start; None where the objective matches no part that counts.
        """
        winner = int(state.best_objective.argmin())
        start, best = float(state.start_distance[winner]), float(state.best_distance[winner])
        if self.objective.matched is None:
            return None
        if not (state.improved[winner] and math.isfinite(start) and start > 0):
            return 0.0
        return min(1.0, max(0.0, 1 - best / start))

    def found_nothing(self, state: SearchState) -> bool:
        """Returns whether the best iterate of the best restart is its start."""
        return not bool(state.improved[int(state.best_objective.argmin())])

    def _start_optimizer(self, variables: Tensor) -> Mapping[str, Tensor]:
        average = {AVERAGE: torch.zeros_like(variables)} if self.settings.averaging > 0 else {}
        return {**initial_optimizer_state(self.settings, variables), **average}

    def _keep_better(self, state: SearchState, found: Points, iteration: int) -> SearchState:
        """The state with those points as the best of their restarts that are better than all before."""
        better = found.objective < state.best_objective
        return replace(
            state,
            best=torch.where(better[:, None], found.candidates, state.best),
            best_objective=torch.where(better, found.objective, state.best_objective),
            best_distance=torch.where(better, self._distance(found), state.best_distance),
            improved=(state.improved | better) & (iteration > 1),
        )

    def _distance(self, found: Points) -> Tensor:
        return found.terms.get(self.objective.matched or "", torch.full_like(found.objective, math.inf))

    def _evaluate(self, state: SearchState, variables: Tensor) -> Points:
        """Evaluates all restarts that are alive, up to `objective.together` at once; without gradients under `no_grad`.

        Args:
            variables: Of all restarts.
        """
        candidates, gradient = torch.zeros_like(state.best), torch.zeros_like(variables)
        reached, terms = torch.full_like(state.best_objective, math.inf), dict[str, Tensor]()
        consensus, memory, noise = self._consensus(state), state.memory, self._smoothing(state)
        for restarts in state.alive.nonzero().flatten().split(self.objective.together):
            rows = variables[restarts].detach().requires_grad_(torch.is_grad_enabled())
            images, shares = self.variables.candidates(rows)
            images = images + noise[restarts]
            labels = self.labels.expand(len(rows), *self.labels.shape) if self.labels is not None else shares
            assert labels is not None  # labels that are not given are searched
            evaluation = self.objective.evaluate_all(images, labels, memory=memory, consensus=consensus)
            slope = torch.zeros_like(rows)
            if rows.requires_grad:
                (slope,) = torch.autograd.grad(evaluation.objective.sum(), rows)
            finite = evaluation.objective.isfinite() & slope.isfinite().all(dim=1)
            parts = [images.clamp(0, 1)] if shares is None else [images.clamp(0, 1), shares]
            kept = restarts[finite]
            candidates[kept] = torch.cat([part.detach().flatten(1) for part in parts], dim=1)[finite]
            gradient[kept], reached[kept] = slope[finite], evaluation.objective.detach()[finite]
            for name, values in evaluation.values.items():
                terms.setdefault(name, torch.zeros_like(reached))[kept] = values[finite].double()
            if finite[0]:  # an engine with a memory takes one restart at a time
                memory = evaluation.memory
        return Points(candidates, reached, gradient, terms, memory)

    def _smoothing(self, state: SearchState) -> Tensor:
        """Noise on all restarts' candidates, fixed by the seed and the iteration; none on the starts.

        Its expectation smooths the objective, less and less along the search (graduated optimisation: Hazan, Levy,
        Shalev-Shwartz 2016, with one draw a step), and the less, the more of the update is explained.
        """
        shape = (len(state.variables), *self.shape)
        if self.settings.smoothing == 0 or state.iteration == 0:
            return state.variables.new_zeros(1).expand(shape)
        left = (state.best_distance / state.start_distance).nan_to_num(nan=1.0, posinf=1.0).clamp(0, 1)
        deviation = self.settings.smoothing * (1 - state.iteration / self.settings.iterations) * left
        drawn = torch.Generator().manual_seed(derive_seed("smoothing", self.seed, state.iteration))
        noise = torch.randn(shape, generator=drawn, dtype=state.variables.dtype, device="cpu")
        scale = deviation.to(noise.dtype).view(-1, *[1] * len(self.shape))
        return scale * noise.to(state.variables.device)

    def _enter_rung(self, state: SearchState) -> SearchState:
        """Drop the worse restarts where the next part of a halving search begins; the optimiser begins anew there."""
        survivors = next((each.survivors for each in self.rungs[1:] if each.start == state.iteration), None)
        if survivors is None:
            return state
        rank = state.best_objective.argsort(stable=True).argsort(stable=True)
        return replace(
            state,
            alive=state.alive & (rank < survivors),
            optimizer_state=self._start_optimizer(state.variables),
            optimizer_start=state.iteration,
        )

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
            optimizer_state=self._start_optimizer(larger),
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
        self, curves: Mapping[str, list[float]], iteration: int, found: Points
    ) -> Mapping[str, list[float]]:
        leader = int(found.objective.argmin())
        every = max(1, self.settings.iterations // CURVE_POINTS)
        due = iteration % every == 0 or iteration in (1, self.settings.iterations)
        if not (due and found.objective[leader].isfinite()):
            return curves
        terms = {name: values[leader].item() for name, values in found.terms.items()}
        point = {"iteration": float(iteration), "objective": found.objective[leader].item(), **terms}
        return {name: [*curves.get(name, []), value] for name, value in point.items()}
