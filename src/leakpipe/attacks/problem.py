"""The update that an attack has to explain, and the training that it assumes to have made it."""

from dataclasses import replace

import torch
from torch import Tensor

from leakpipe.attacks.adaptive import adapt
from leakpipe.attacks.clipped_values import ClippedValues, read_clipped
from leakpipe.attacks.distances import WITHOUT_DIFFERENCE
from leakpipe.attacks.observation import KnownClient, Observation
from leakpipe.attacks.plain_update import Reading, as_plain_sgd, plain_of, read_training
from leakpipe.attacks.recovered_statistics import weight_of_batches
from leakpipe.attacks.surrogate import with_surrogate_relus
from leakpipe.client.local_update import LocalSettings
from leakpipe.client.optimizers import is_adaptive
from leakpipe.client.update import ClientUpdate
from leakpipe.models.state import Tensors
from leakpipe.params.attack_settings import AttackSettings
from leakpipe.params.defenses import DefenseSteps
from leakpipe.params.training import AdamParams, LossParams, TrainingParams

Training = tuple[list[list[int]], float]  # a schedule over all candidates, and its weight in the update


class Problem:
    """An observation as one attack reads it; engines and terms share it.

    Args:
        seed: Fixes the orders that are averaged over where they are unknown.

    Attributes:
        settings: As `leakpipe.attacks.observation.usable_settings` returns them.
        assumed_training: How the attack assumes that the client trained.
        model: The global model, with surrogate ReLUs where the settings ask for them.
        trainings: The local trainings whose average explains the update (`simulated_trainings`).
        adapted_update: The update with its defence undone, as far as the attacker knows it and can, and, where one step
            of one gradient made it, what plain SGD would have made of that gradient.
        reading: What the update says of its gradients.
        drift: What is taken off every update before it is compared, by parameter name; without those it is zero for.
        scales: Factor of each tensor of an update before updates are compared.
        observed: The weight differences that candidates have to explain, `undrifted`.
        either_sign: Whether the opposite of the update counts as the update.
        clipped: What the update tells of gradients that the client clipped by value; None where none were.
        explains: Whether the attack compares updates.
        one_step: Whether the update is one local step of one client: its batch statistics are those of a forward pass.
        bounded_statistics: Whether the batch statistics to match are known within bounds only.
    """

    def __init__(self, observation: Observation, settings: AttackSettings, *, seed: int) -> None:
        self.observation, self.settings = observation, settings
        client, before = observation.settings, observation.before
        self.assumed_training = LocalSettings(
            learning_rate=client.learning_rate,
            batch_norm_momentum=client.batch_norm_momentum,
            batch_norm="frozen" if settings.batch_norm == "frozen" else "training",
            training=believed_training(client, settings),
            softening=settings.adam_softening,
        )
        slope = settings.surrogate_slope
        self.model = with_surrogate_relus(before, slope) if slope > 0 else before
        self.trainings = simulated_trainings(observation, settings, seed=seed)
        defense = observation.defense or DefenseSteps(())
        self.adapted_update = adapt(observation.update, defense, shares=observation.shares)
        self.reading = read_training(before.weights, self.assumed_training, observation.update.steps)
        # A prediction above its smoothed label turns the gradient's sign; candidates start below.
        smoothed = self.assumed_training.training.loss.label_smoothing > 0
        self.either_sign = smoothed and observation.candidates == 1 and settings.objective == "cosine"
        self.clipped: ClippedValues | None = None
        self.drift: Tensors = {} if observation.cohort else self.reading.drift
        self._take_the_optimizer_out()
        self.scales = self._scale_tensors()
        self.observed = {name: self.undrifted(name, value) for name, value in self.adapted_update.weights.items()}
        self.explains = observation.has_signal and settings.objective_weight > 0
        self.one_step = observation.update.steps == 1 and not observation.cohort
        self.bounded_statistics = settings.batch_norm == "update" and bool(self.adapted_update.statistic_bounds)

    def weight_of_batches(self, update: ClientUpdate) -> float:
        """Weight of the batches in the observed update, or in one that candidates explain."""
        steps = [update.steps, *(len(client.assumed_schedule) for client in self.observation.cohort)]
        return weight_of_batches(self.assumed_training.batch_norm_momentum, steps, self.observation.shares)

    def undrifted(self, name: str, change: Tensor) -> Tensor:
        """A tensor of an update without the drift."""
        return change - self.drift[name] if name in self.drift else change

    def _take_the_optimizer_out(self) -> None:
        """Goes on as if plain SGD had made the update, where the same gradient would have."""
        if self._clips_values():
            self._unclip_values()
            return
        training, reading, adapted = self.assumed_training.training, self.reading, self.adapted_update
        exact = reading.gain is not None and reading.single and not self.observation.cohort
        comparable = self.settings.objective in WITHOUT_DIFFERENCE or reading.knows_length(adapted.weights)
        if training == plain_of(training) or not (exact and comparable):
            return
        self._read_as_plain_sgd(reading)

    def _read_as_plain_sgd(self, reading: Reading) -> None:
        self.adapted_update = as_plain_sgd(self.adapted_update, reading, self.assumed_training.learning_rate)
        self.assumed_training = replace(self.assumed_training, training=plain_of(self.assumed_training.training))
        self.drift = {}

    def _clips_values(self) -> bool:
        """Returns whether one step followed gradients clipped by value, and nothing else has made its values bounds."""
        training = self.assumed_training.training
        by_value = training.clipping is not None and training.clipping.kind == "value"
        # what Adam's own decay adds to a clipped gradient decides its sign
        mixes = isinstance(training.optimizer, AdamParams) and training.optimizer.weight_decay > 0
        single = self.reading.single and not self.observation.cohort
        return by_value and not mixes and single and not self.adapted_update.weight_bounds

    def _unclip_values(self) -> None:
        """Goes on as if nothing had been clipped, because a limit has no slope; Adam's signs are the same without."""
        training, before = self.assumed_training.training, self.observation.before.weights
        assert training.clipping is not None
        limit = self.assumed_training.learning_rate * training.clipping.limit
        unclipped = training.model_copy(update={"clipping": None})
        self.assumed_training = replace(self.assumed_training, training=unclipped)
        if not is_adaptive(training.optimizer):
            self._read_as_plain_sgd(read_training(before, self.assumed_training, self.observation.update.steps))
            self.clipped = read_clipped(self.adapted_update.weights, before, limit)

    def _scale_tensors(self) -> dict[str, float]:
        settings = self.settings
        unit = self.assumed_training.learning_rate if settings.objective in ("l2", "layer-norms") else 1.0
        weights = self.adapted_update.weights.items()
        norms = {name: float(self.undrifted(name, value).double().norm()) for name, value in weights}
        largest = max(norms.values())
        # Signs have the same norm per value in every tensor, which says nothing of what its gradient tells.
        signs = self.clipped is not None or is_adaptive(self.assumed_training.training.optimizer)
        weighting = 0.0 if self.adapted_update.equal_noise or signs else settings.layer_weighting
        return {name: (norm / largest) ** -weighting / unit if norm > 0 else 1 / unit for name, norm in norms.items()}


def believed_training(client: LocalSettings, settings: AttackSettings) -> TrainingParams:
    """Returns how the attack believes that the client trained: as it did, unless the settings say otherwise."""
    if settings.client_loss == "saturated-bce":
        return TrainingParams(loss=LossParams(kind="binary-cross-entropy"))
    return client.training if settings.training is None else settings.training


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
            order = torch.randperm(client.images, generator=generator, device="cpu")
            schedule = schedule + [chunk.tolist() for chunk in order.split(client.batch_size)]
        schedules.append(schedule)
    return schedules
