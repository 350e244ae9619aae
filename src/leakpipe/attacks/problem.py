"""What an attack has to explain, and the training that it assumes to have made it."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from leakpipe.attacks.adaptive import Adapted, adapt
from leakpipe.attacks.observation import KnownClient, Observation
from leakpipe.attacks.recovered_statistics import weight_of_batches
from leakpipe.attacks.surrogate import with_surrogate_relus
from leakpipe.client.local_update import LocalSettings
from leakpipe.client.update import ClientUpdate
from leakpipe.models.state import ModelState
from leakpipe.params.attacks import AttackSettings
from leakpipe.params.defenses import DefenseSteps

Training = tuple[list[list[int]], float]  # a schedule over all candidates, and its weight in the update


@dataclass(frozen=True)
class Problem:
    """An observation as one attack reads it; engines and terms share it.

    Attributes:
        settings: As `leakpipe.attacks.observation.usable_settings` returns them.
        seed: Fixes the orders that are averaged over where they are unknown.
    """

    observation: Observation
    settings: AttackSettings
    seed: int

    @cached_property
    def assumed_training(self) -> LocalSettings:
        """How the attack assumes that the client trained."""
        client, settings = self.observation.settings, self.settings
        return LocalSettings(
            learning_rate=client.learning_rate,
            batch_norm_momentum=client.batch_norm_momentum,
            batch_norm="frozen" if settings.batch_norm == "frozen" else "training",
            loss="cross-entropy" if settings.client_loss == "cross-entropy" else "binary-cross-entropy",
        )

    @cached_property
    def model(self) -> ModelState:
        """The global model, with surrogate ReLUs where the settings ask for them."""
        slope = self.settings.surrogate_slope
        return with_surrogate_relus(self.observation.before, slope) if slope > 0 else self.observation.before

    @cached_property
    def trainings(self) -> list[Training]:
        """The local trainings whose average explains the update (`simulated_trainings`)."""
        return simulated_trainings(self.observation, self.settings, seed=self.seed)

    @cached_property
    def adapted_update(self) -> Adapted:
        """The update with its defence undone, as far as the attacker knows it and can."""
        seen = self.observation
        return adapt(seen.update, seen.defense or DefenseSteps(()), shares=seen.shares)

    @cached_property
    def scales(self) -> dict[str, float]:
        """Factor of each tensor of an update before updates are compared."""
        settings = self.settings
        unit = self.assumed_training.learning_rate if settings.objective in ("l2", "layer-norms") else 1.0
        norms = {name: float(value.double().norm()) for name, value in self.adapted_update.weights.items()}
        largest = max(norms.values())
        weighting = 0.0 if self.adapted_update.equal_noise else settings.layer_weighting
        return {name: (norm / largest) ** -weighting / unit if norm > 0 else 1 / unit for name, norm in norms.items()}

    @cached_property
    def observed(self) -> dict[str, Tensor]:
        """The weight differences that candidates have to explain, scaled."""
        return {name: value * self.scales[name] for name, value in self.adapted_update.weights.items()}

    @property
    def explains(self) -> bool:
        """Whether the attack compares updates."""
        return self.observation.has_signal and self.settings.objective_weight > 0

    @property
    def one_step(self) -> bool:
        """Whether the update is one local step of one client, whose batch statistics are those of a forward pass."""
        return self.observation.update.steps == 1 and not self.observation.cohort

    @property
    def bounded_statistics(self) -> bool:
        """Whether the batch statistics to match are known within bounds only."""
        return self.settings.batch_norm == "update" and bool(self.adapted_update.statistic_bounds)

    def weight_of_batches(self, update: ClientUpdate) -> float:
        """Weight of the batches in the observed update, or in one that candidates explain."""
        steps = [update.steps, *(len(client.assumed_schedule) for client in self.observation.cohort)]
        return weight_of_batches(self.assumed_training.batch_norm_momentum, steps, self.observation.shares)


def simulated_trainings(observation: Observation, settings: AttackSettings, *, seed: int) -> list[Training]:
    """The schedules that are simulated on the candidates, and the weight of each in the update that they explain.

    The attacked client's come first; those of the clients in an aggregate number candidates one client after the other.
    """
    trainings, first = [], 0
    for client, share in zip(observation.clients, observation.shares, strict=True):
        schedules = assumed_schedules(client, settings, seed=seed)
        for schedule in schedules:
            placed = [[first + position for position in step] for step in schedule]
            trainings.append((placed, share / len(schedules)))
        first += client.images
    return trainings


def assumed_schedules(client: KnownClient, settings: AttackSettings, *, seed: int) -> list[list[list[int]]]:
    """One client's schedules that are averaged over: one, or `settings.orders` where the order is unknown.

    The first epoch of each numbers the candidates; later epochs are in orders drawn from `seed`.
    """
    assumed = [list(step) for step in client.assumed_schedule]
    if client.schedule is not None or settings.orders == 1 or client.epochs == 1:
        return [assumed]
    generator = torch.Generator().manual_seed(seed)
    schedules = []
    for _ in range(settings.orders):
        schedule = assumed[: len(assumed) // client.epochs]
        for _ in range(client.epochs - 1):
            order = torch.randperm(client.images, generator=generator)
            schedule = schedule + [chunk.tolist() for chunk in order.split(client.batch_size)]
        schedules.append(schedule)
    return schedules
