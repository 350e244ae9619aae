"""Deviations of the tool released with Hatamizadeh et al. 2023 from the paper's formulas.

`docs/attacks/published-tool.md` numbers its deviations; each is a setting that `AttackSettings` lists last. Attacks
that set any of them are run by the engine below, so that no other module knows of them.
"""

import torch
from torch import Tensor

from leakpipe.attacks.engines.autograd import Autograd
from leakpipe.attacks.engines.engine import Explained
from leakpipe.attacks.problem import Problem
from leakpipe.attacks.recovered_statistics import StatisticsByLayer
from leakpipe.client.losses import training_loss
from leakpipe.client.update import ClientUpdate
from leakpipe.models.layers import count_classes
from leakpipe.models.preprocessing import undo_normalization
from leakpipe.models.state import ModelState, Tensors, forward_training, measure_statistics
from leakpipe.params.attack_settings import AttackSettings

DEVIATIONS = (
    "update_gradient",
    "global_model",
    "statistics_model",
    "variance",
    "local_batches",
    "client_loss",
    "candidate_input",
)


def find_deviations(settings: AttackSettings) -> list[str]:
    """The deviations that an attack sets, each as "name: value"."""
    usual, found = AttackSettings(), {name: getattr(settings, name) for name in DEVIATIONS}
    return [f"{name}: {value}" for name, value in found.items() if value != getattr(usual, name)]


class ReleasedTool(Autograd):
    """Autograd through a training that deviates from the client's as the released tool's does.

    It remembers how far the simulated client's model has drifted, by weight, where the model drifts.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.settings = problem.settings
        self.simulates = self.simulates or self.settings.global_model == "drifting"
        self.detaches = self.settings.update_gradient == "detached"
        if self.settings.local_batches == "single":
            self.trainings = [([list(range(problem.observation.candidates))], 1.0)]

    def initial_memory(self) -> Tensors:
        drifts = self.settings.global_model == "drifting"
        weights = self.problem.model.weights
        return {name: torch.zeros_like(weight) for name, weight in weights.items()} if drifts else {}

    def network_images(self, images: Tensor) -> Tensor:
        if self.settings.candidate_input == "normalized":
            return images
        raw = undo_normalization(images.flatten(0, -4))
        return raw.view(*images.shape[:-3], *raw.shape[1:])

    def explain(self, images: Tensor, labels: Tensor, memory: Tensors) -> Explained:
        if self.settings.client_loss == "saturated-bce":
            labels = images.new_ones(len(images), count_classes(self.problem.model))
        model, update, distance = self._drifted(memory), None, None
        if self.simulates:
            given = (images.detach(), labels.detach()) if self.detaches else (images, labels)
            update = self.simulate(model, *given)
            memory = {name: value + update.weights[name].detach() for name, value in memory.items()}
        if self.problem.explains and update is not None:
            distance = self.distance(update)
            if self.detaches:
                distance = self._with_loss_gradient(distance, model, images, labels)
        return Explained(distance, self._statistics(images, update), update, memory)

    def _drifted(self, drift: Tensors) -> ModelState:
        model = self.problem.model
        if not drift:
            return model
        return model.with_tensors({n: weight + drift[n] for n, weight in model.weights.items()}, model.statistics)

    def _with_loss_gradient(self, distance: Tensor, model: ModelState, images: Tensor, labels: Tensor) -> Tensor:
        """The distance's value with the gradient of the training loss.

        The tool's term has no gradient of its own. Its simulated training leaves that of the loss behind, at full size
        whatever the term's weight.
        """
        loss = training_loss(forward_training(model, images)[0], labels, self.problem.assumed_training.training.loss)
        return distance.detach() + (loss - loss.detach()) / self.settings.objective_weight

    def _statistics(self, images: Tensor, update: ClientUpdate | None) -> StatisticsByLayer | None:
        settings, model = self.settings, self.problem.model
        if settings.batch_norm_weight == 0:
            return None
        updated, biased = settings.statistics_model == "updated", settings.variance == "biased"
        if update is not None and not (updated or biased or self.detaches):
            return self.recovered_statistics(update)
        if updated:
            change = self.problem.observation.update.weights
            moved = {name: weight + change.get(name, 0) for name, weight in model.weights.items()}
            model = model.with_tensors(moved, model.statistics)
        measured = measure_statistics(model, images, frozen=settings.batch_norm == "frozen")
        if biased:
            return {layer: statistics.with_biased_variance() for layer, statistics in measured.items()}
        return measured
