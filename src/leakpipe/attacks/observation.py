"""What an attacker has. True images cannot be among it: an observation has no place for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from leakpipe.errors import LeakpipeError
from leakpipe.federation.local import ClientUpdate, LocalSettings, assume_schedule
from leakpipe.models.batchnorm import BatchStatistics
from leakpipe.models.state import ModelState, shared_part
from leakpipe.params_attacks import AttackSettings
from leakpipe.params_defenses import DefenseSteps


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One client's update and what the threat model grants besides.

    Attributes:
        before: The global model that the client was sent.
        update: What it shared (after its defences). Its `statistics` are empty where running statistics are
            withheld. Its `weights` lack batch normalisation's where the client keeps them (FedBN): what it
            trained with is then unknown, and the global model's stand for it.
        settings: How the client trained: learning rate, BN momentum.
        images: How many images the client trained on.
        batch_size: Images in one local step (the last of an epoch may have fewer).
        epochs: Passes over the images; local steps follow from these three.
        image_shape: Channels, height and width of an image.
        labels: Shape (images,): class indices by position; None where they are not granted.
        schedule: Positions of the images in each local step; None where the order is not granted.
        prior: The attacker's guesses before the update, shape (images, channels, height, width) in [0, 1];
            None where there is none.
        exact_statistics: Batch statistics by layer (their weighted mean over the local steps) where the threat
            model grants them besides the update.
        defense: Steps that the client applied to its update; None where they are not told.

    Raises:
        LeakpipeError: The update is not one of this model, or sizes contradict each other.
    """

    before: ModelState
    update: ClientUpdate
    settings: LocalSettings
    images: int
    batch_size: int
    epochs: int
    image_shape: tuple[int, int, int]
    labels: Tensor | None = None
    schedule: Sequence[Sequence[int]] | None = None
    prior: Tensor | None = None
    exact_statistics: Mapping[str, BatchStatistics] | None = None
    defense: DefenseSteps | None = None

    def __post_init__(self) -> None:
        shared = shared_part(self.before, self.update.weights)
        _check_tensors("weights", self.update.weights, shared.weights)
        if self.update.statistics:
            _check_tensors("statistics", self.update.statistics, self.before.statistics)
        for name in ("images", "batch_size", "epochs"):
            if getattr(self, name) < 1:
                raise LeakpipeError(f"{name}: {getattr(self, name)}, expected 1 or more")
        if self.schedule is not None:
            positions = sorted(position for step in self.schedule for position in step)
            if positions != sorted([*range(self.images)] * self.epochs):
                raise LeakpipeError(f"schedule: not every position below {self.images} once in each epoch")
        steps = len(self.assumed_schedule)
        if steps != self.update.steps:
            raise LeakpipeError(
                f"update: {self.update.steps} local steps, expected {steps} for {self.images} images, "
                f"batch size {self.batch_size} and {self.epochs} epochs"
            )
        if self.labels is not None and self.labels.shape != (self.images,):
            raise LeakpipeError(f"labels: shape {tuple(self.labels.shape)}, expected ({self.images},)")
        if self.prior is not None and self.prior.shape != (self.images, *self.image_shape):
            raise LeakpipeError(f"prior: shape {tuple(self.prior.shape)}, expected {(self.images, *self.image_shape)}")

    @property
    def assumed_schedule(self) -> Sequence[Sequence[int]]:
        """The schedule that is granted, or else what an attacker assumes (`assume_schedule`)."""
        return self.schedule or assume_schedule(self.images, self.batch_size, self.epochs)

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
    if withheld and settings.batch_norm == "update" and observation.has_signal and settings.matches_weights:
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
    if observation.prior is None and (settings.start == "prior" or settings.prior_weight > 0):
        raise LeakpipeError("the attack needs a prior image, but none is granted")
    return settings, notes


def assumed_schedules(observation: Observation, settings: AttackSettings, *, seed: int) -> list[list[list[int]]]:
    """The schedules whose simulated updates are averaged: one, or `settings.orders` where the order is unknown.

    The first epoch of each names the candidates; later epochs are in orders drawn from `seed`.
    """
    assumed = [list(step) for step in observation.assumed_schedule]
    if settings.local_batches == "single":
        return [[list(range(observation.images))]]
    if observation.schedule is not None or settings.orders == 1 or observation.epochs == 1:
        return [assumed]
    generator = torch.Generator().manual_seed(seed)
    schedules = []
    for _ in range(settings.orders):
        schedule = assumed[: len(assumed) // observation.epochs]
        for _ in range(observation.epochs - 1):
            order = torch.randperm(observation.images, generator=generator)
            schedule = schedule + [chunk.tolist() for chunk in order.split(observation.batch_size)]
        schedules.append(schedule)
    return schedules


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
