"""The engine that knows every network and every training: autograd through the simulated local training."""

import torch
from torch import Tensor

from leakpipe.attacks.adaptive import move_into
from leakpipe.attacks.distances import (
    DISTANCES,
    WITHOUT_DIFFERENCE,
    compare_tensors,
    of_either_sign,
    squared_lengths,
)
from leakpipe.attacks.engines.engine import Engine, Explained, laid_out
from leakpipe.attacks.problem import Problem
from leakpipe.attacks.recovered_statistics import StatisticsByLayer, recover_batch_statistics
from leakpipe.client.batches import make_batches
from leakpipe.client.local_update import local_update
from leakpipe.client.update import ClientUpdate, aggregate_updates
from leakpipe.models.state import ModelState, Tensors


class Autograd(Engine):
    """Differentiates `local_update`, the very function that clients run (Zhu 2019)."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.trainings = problem, problem.trainings
        scales = [problem.scales[name] for name in problem.observed]
        self.scales = torch.tensor(scales, dtype=torch.float64, device=problem.model.device).square()
        observed = {name: laid_out(value) for name, value in problem.observed.items()}
        weights = {name: laid_out(value) for name, value in problem.model.weights.items()}
        self.model = problem.model.with_tensors(weights, problem.model.statistics)
        self.exact = observed, squared_lengths(observed)
        # The statistics of one step are those of one forward pass: no training has to be simulated for them.
        self.simulates = problem.explains or not problem.one_step or problem.bounded_statistics

    def explain(self, images: Tensor, labels: Tensor, memory: Tensors) -> Explained:
        if not self.simulates:
            return Explained(memory=memory)
        update = self.simulate(self.model, images, labels)
        distance = self.distance(update) if self.problem.explains else None
        return Explained(distance, self.recovered_statistics(update), update, memory)

    def simulate(self, model: ModelState, images: Tensor, labels: Tensor) -> ClientUpdate:
        """The update that the candidates explain, averaged over clients and over the schedules that are possible."""
        assumed = self.problem.assumed_training
        updates = [
            local_update(model, make_batches(images, labels, schedule), assumed) for schedule, _ in self.trainings
        ]
        return updates[0] if len(updates) == 1 else aggregate_updates(updates, [share for _, share in self.trainings])

    def distance(self, update: ClientUpdate) -> Tensor:
        """Distance of a simulated update from the observed one."""
        problem, objective = self.problem, self.problem.settings.objective
        mine: Tensors = {name: problem.undrifted(name, update.weights[name]) for name in problem.observed}
        if problem.clipped is None:
            theirs, lengths = self._to_match(update)
        else:
            mine, theirs = problem.clipped.compare(mine)
            lengths = squared_lengths(theirs)
        products = compare_tensors(mine, theirs, differs=objective not in WITHOUT_DIFFERENCE)
        distance = DISTANCES[objective](products.scaled(self.scales), lengths * self.scales)
        return of_either_sign(distance) if problem.either_sign else distance

    def recovered_statistics(self, update: ClientUpdate) -> StatisticsByLayer | None:
        """Batch statistics of the candidates; None where the attack does not match any, or matches frozen ones."""
        problem = self.problem
        if problem.settings.batch_norm_weight == 0 or problem.settings.batch_norm == "frozen":
            return None
        return recover_batch_statistics(problem.model, update, problem.weight_of_batches(update))

    def _to_match(self, update: ClientUpdate) -> tuple[Tensors, Tensor]:
        """Observed differences, half the way to the candidates' own within known bounds; and their squared lengths."""
        problem = self.problem
        if not problem.adapted_update.weight_bounds:
            return self.exact
        nearest = move_into(problem.adapted_update.weight_bounds, update.weights)
        middle = {
            name: 0.5 * problem.observed[name] + 0.5 * problem.undrifted(name, value) for name, value in nearest.items()
        }
        return middle, squared_lengths(middle)
