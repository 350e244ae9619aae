"""What an attacker has. True images cannot be among it: an observation has no place for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from leakpipe.attacks.clients import KnownClient
from leakpipe.attacks.requirements import matches_weights, unfit_for_aggregates
from leakpipe.client.local_update import LocalSettings
from leakpipe.client.update import ClientUpdate
from leakpipe.defenses.steps import count_aggregated
from leakpipe.errors import LeakpipeError
from leakpipe.models.batchnorm import BatchStatistics
from leakpipe.models.state import ModelState, shared_part
from leakpipe.params.attacks import AttackSettings
from leakpipe.params.defenses import DefenseSteps


@dataclass(frozen=True, kw_only=True)
class Observation(KnownClient):
    """One client's update, or an aggregate that holds it, and what the threat model grants besides.

    What it has of a `KnownClient` is about the attacked client.

    Attributes:
        before: The global model that the client was sent.
        update: What it shared (after its defences). Its `statistics` are empty where running statistics are
            withheld. Its `weights` lack batch normalisation's where the client keeps them (FedBN): what it
            trained with is then unknown, and the global model's stand for it.
        settings: How the client trained: learning rate, BN momentum.
        image_shape: Channels, height and width of an image.
        exact_statistics: Batch statistics by layer (their weighted mean over the local steps) where the threat
            model grants them besides the update.
        defense: Steps that the client applied to its update; None where they are not told.
        companions: The other clients whose updates `update` is averaged with, weighted by images; empty where it is
            one client's, or is taken for that by an attacker who is not told.

    Raises:
        LeakpipeError: The update is not one of this model, or sizes contradict each other.
    """

    before: ModelState
    update: ClientUpdate
    settings: LocalSettings
    image_shape: tuple[int, int, int]
    exact_statistics: Mapping[str, BatchStatistics] | None = None
    defense: DefenseSteps | None = None
    companions: Sequence[KnownClient] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        shared = shared_part(self.before, self.update.weights)
        _check_tensors("weights", self.update.weights, shared.weights)
        if self.update.statistics:
            _check_tensors("statistics", self.update.statistics, self.before.statistics)
        steps = len(self.assumed_schedule)
        if steps != self.update.steps:
            raise LeakpipeError(
                f"update: {self.update.steps} local steps, expected {steps} for {self.images} images, "
                f"batch size {self.batch_size} and {self.epochs} epochs"
            )
        for client in self.clients:
            expected = (client.images, *self.image_shape)
            if client.prior is not None and client.prior.shape != expected:
                raise LeakpipeError(f"prior: shape {tuple(client.prior.shape)}, expected {expected}")
        if self.defense is not None and (aggregated := count_aggregated(self.defense)) != len(self.clients):
            raise LeakpipeError(
                f"companions: {len(self.companions)}, expected {aggregated - 1} for the told "
                f"aggregate of {aggregated} clients"
            )

    @property
    def clients(self) -> tuple[KnownClient, ...]:
        """All whose training the update is made of, the attacked one first; candidates are in this order."""
        return self, *self.companions

    @property
    def candidates(self) -> int:
        """How many images the update is made of."""
        return sum(client.images for client in self.clients)

    @property
    def shares(self) -> tuple[float, ...]:
        """Weight of each client in the update; they sum to 1."""
        return tuple(client.images / self.candidates for client in self.clients)

    @property
    def candidate_labels(self) -> Tensor | None:
        """Labels of all candidates, shape (candidates,); None unless those of all clients are granted."""
        return _joined([client.labels for client in self.clients])

    @property
    def candidate_prior(self) -> Tensor | None:
        """Prior images of all candidates, shape (candidates, channels, height, width); None unless all have one."""
        return _joined([client.prior for client in self.clients])

    @property
    def has_signal(self) -> bool:
        """Whether any weight moved: a client whose loss is zero sends a zero update."""
        return any(bool(value.any()) for value in self.update.weights.values())


def usable_settings(observation: Observation, settings: AttackSettings) -> tuple[AttackSettings, list[str]]:
    """Hold what an attack needs against what the attacker has.

    A client whose loss is zero sends a zero update, which says nothing of its images, while its running
    statistics still do: the attack then falls back on them, and a note says so. Where a defence withholds running
    statistics the attack goes on without them, if it has anything else to match.

    Returns:
        The settings to attack with, and notes.

    Raises:
        LeakpipeError: Says what the settings need and the observation lacks.
    """
    notes = []
    if not observation.has_signal:
        notes.append("The observed weight differences are all zero: only the other terms were used.")
        matches_update = settings.batch_norm_weight > 0 and settings.batch_norm != "frozen"
        if observation.update.statistics and not matches_update:
            settings = settings.model_copy(update={"batch_norm": "update", "batch_norm_weight": 1.0})
            notes.append("The attack does not match the update's batch statistics: it fell back on them.")
    withheld = bool(observation.before.statistics) and not observation.update.statistics
    if withheld and settings.batch_norm == "update" and observation.has_signal and matches_weights(settings):
        if settings.batch_norm_weight > 0:
            notes.append("The update holds no running statistics: the attack went on without them.")
        settings = settings.model_copy(update={"batch_norm_weight": 0.0})
    matches = settings.batch_norm_weight > 0
    if matches and not observation.before.statistics:
        raise LeakpipeError("the attack matches batch statistics, but the model has no batch normalisation")
    if matches and settings.batch_norm == "update" and not observation.update.statistics:
        raise LeakpipeError("the attack needs running statistics in the update, but they are withheld")
    if matches and settings.batch_norm == "exact" and observation.exact_statistics is None:
        raise LeakpipeError("the attack needs exact batch statistics, but none are granted")
    if not (observation.has_signal or matches):
        raise LeakpipeError("the update is all zero and holds no running statistics: nothing is left to attack")
    if observation.companions:
        unfit = unfit_for_aggregates(settings, labels_known=observation.candidate_labels is not None)
        if unfit:
            raise LeakpipeError(f"the update is an aggregate of {len(observation.clients)} clients, but {unfit}")
        images, clients = observation.candidates, len(observation.clients)
        notes.append(f"The update is an aggregate: {images} candidates for its {clients} clients were searched.")
    if observation.candidate_prior is None and (settings.start == "prior" or settings.prior_weight > 0):
        raise LeakpipeError("the attack needs a prior image, but none is granted")
    return settings, notes


def simulated_trainings(
    observation: Observation, settings: AttackSettings, *, seed: int
) -> list[tuple[list[list[int]], float]]:
    """The schedules that are simulated on the candidates, and the weight of each in the update that they explain.

    The attacked client's first; those of the clients in an aggregate name candidates one client after the other.
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

    The first epoch of each names the candidates; later epochs are in orders drawn from `seed`.
    """
    assumed = [list(step) for step in client.assumed_schedule]
    if settings.local_batches == "single":
        return [[list(range(client.images))]]
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


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    known = [part for part in parts if part is not None]
    return torch.cat(known) if len(known) == len(parts) else None


def _check_tensors(part: str, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    for name, tensor in expected.items():
        if name not in found:
            raise LeakpipeError(f"update: {part}: {name!r} is missing; the model has it")
        if found[name].shape != tensor.shape:
            shapes = f"shape {tuple(found[name].shape)}, expected {tuple(tensor.shape)}"
            raise LeakpipeError(f"update: {part}: {name!r} has {shapes}")
    for name in found:
        if name not in expected:
            raise LeakpipeError(f"update: {part}: {name!r} is not one of the model's")
