"""The attacker's knowledge. True images cannot be among it: an observation has no place for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leakpipe.attacks.harmonise import as_tensor, check_finite, harmonise_model, harmonise_settings, harmonise_update
from leakpipe.attacks.recovered_statistics import statistics_by_layer
from leakpipe.attacks.requirements import matches_weights, unfit_for_aggregates
from leakpipe.client.batches import assume_schedule
from leakpipe.client.local_update import LocalSettings
from leakpipe.client.update import ClientUpdate
from leakpipe.defenses.steps import count_aggregated
from leakpipe.errors import LeakpipeError
from leakpipe.models.batchnorm import BatchStatistics
from leakpipe.models.state import ModelState, shared_part
from leakpipe.params.attack_settings import AttackSettings
from leakpipe.params.defenses import DefenseSteps


@dataclass(frozen=True, kw_only=True)
class KnownClient:
    """One client's training as the attacker knows it.

    Attributes:
        images: How many images the client trained on.
        batch_size: Images in one local step (the last of an epoch may have fewer).
        epochs: Passes over the images; local steps follow from these three.
        labels: Shape (images,): class indices by position; None where they are not granted. Where an image may have
            several, 0 or 1 for each class, shape (images, classes), of a floating dtype.
        multi_label: Whether an image may have several labels, which everybody knows of a task.
        schedule: Positions of the images in each local step; None where the order is not granted.
        prior: The attacker's guesses before the update, shape (images, channels, height, width) in [0, 1];
            None where there is none.

    Raises:
        LeakpipeError: Sizes contradict each other.
    """

    images: int
    batch_size: int
    epochs: int
    labels: Tensor | None = None
    multi_label: bool = False
    schedule: Sequence[Sequence[int]] | None = None
    prior: Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("images", "batch_size", "epochs"):
            if getattr(self, name) < 1:
                raise LeakpipeError(f"{name}: {getattr(self, name)}, expected 1 or more")
        if self.schedule is not None:
            positions = sorted(position for step in self.schedule for position in step)
            if positions != sorted([*range(self.images)] * self.epochs):
                raise LeakpipeError(f"schedule: not every position below {self.images} once in each epoch")
        if self.labels is not None:
            object.__setattr__(self, "labels", self._checked_labels(as_tensor(self.labels, field="labels")))
        if self.prior is not None:
            object.__setattr__(self, "prior", self._checked_prior(as_tensor(self.prior, field="prior")))

    def to(self, device: torch.device) -> "KnownClient":
        """Returns the same with labels and prior on a device."""
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, labels=labels, prior=None if self.prior is None else self.prior.to(device))

    def _checked_labels(self, labels: Tensor) -> Tensor:
        if self.multi_label:
            if labels.dim() != 2 or len(labels) != self.images or not bool(((labels == 0) | (labels == 1)).all()):
                raise LeakpipeError(
                    f"labels: shape {tuple(labels.shape)}, expected 0 or 1 for each class, ({self.images}, classes)"
                )
            return labels if labels.is_floating_point() else labels.float()
        if labels.shape != (self.images,):
            raise LeakpipeError(f"labels: shape {tuple(labels.shape)}, expected ({self.images},)")
        if labels.is_floating_point() or labels.dtype == torch.bool:
            raise LeakpipeError(f"labels: {labels.dtype}, expected class indices (torch.int64)")
        if int(labels.min()) < 0:
            raise LeakpipeError(f"labels: {labels.tolist()}, expected class indices from 0 on")
        return labels.long()

    @staticmethod
    def _checked_prior(prior: Tensor) -> Tensor:
        if not prior.is_floating_point():
            raise LeakpipeError(f"prior: {prior.dtype}, expected floating-point values in [0, 1]; divide by 255")
        check_finite(prior, field="prior")
        least, most = float(prior.min()), float(prior.max())
        if not 0 <= least <= most <= 1:
            raise LeakpipeError(f"prior: values from {least:g} to {most:g}, expected [0, 1]; scale the images")
        return prior

    @property
    def assumed_schedule(self) -> Sequence[Sequence[int]]:
        """The granted schedule, or else the one that an attacker assumes (`assume_schedule`)."""
        return self.schedule or assume_schedule(self.images, self.batch_size, self.epochs)


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One client's update, or an aggregate that contains it, and what the threat model grants besides.

    `leakpipe.attacks.threat_model.observe` builds one from a captured update.

    Attributes:
        before: The global model that the client received.
        update: What the client shared (after its defences). Its `statistics` are empty where running statistics are
            withheld. Its `weights` lack those of batch normalisation where the client keeps them (FedBN): the values
            that it trained with are then unknown, and the global model's stand in for them.
        settings: How the client trained: learning rate, BN momentum.
        image_shape: Channels, height and width of an image; of a volume channels, depth, height and width.
        client: The attacked client.
        cohort: The other clients whose updates `update` is averaged with, weighted by images. Empty for the update of
            one client, and for an aggregate that the attacker takes for the update of one client.
        exact_statistics: Batch statistics by layer (their weighted mean over the local steps) where the threat
            model grants them besides the update.
        defense: Steps that the client applied to its update; None where the attacker does not know them.
        public: Images that the attacker holds, shape (count, channels, height, width) in [0, 1]; None where there are
            none.
        notes: What was converted to make the parts agree, in sentences: names, dtypes (`leakpipe.attacks.harmonise`).

    Raises:
        LeakpipeError: The update is not one of this model, values are not finite or out of range, or sizes contradict
            each other.
    """

    before: ModelState
    update: ClientUpdate
    settings: LocalSettings
    image_shape: tuple[int, ...]
    client: KnownClient
    cohort: Sequence[KnownClient] = ()
    exact_statistics: Mapping[str, BatchStatistics] | None = None
    defense: DefenseSteps | None = None
    public: Tensor | None = None
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        self._harmonise()
        shared = shared_part(
            self.before, {**self.update.weights, **self.update.statistics}, removed=self.update.removed
        )
        _check_tensors("weights", self.update.weights, shared.weights)
        if self.update.statistics:
            _check_tensors("statistics", self.update.statistics, shared.statistics)
        steps, client = len(self.client.assumed_schedule), self.client
        if steps != self.update.steps:
            raise LeakpipeError(
                f"update: {self.update.steps} local steps, expected {steps} for {client.images} images, "
                f"batch size {client.batch_size} and {client.epochs} epochs"
            )
        for client in self.clients:
            expected = (client.images, *self.image_shape)
            if client.prior is not None and client.prior.shape != expected:
                raise LeakpipeError(f"prior: shape {tuple(client.prior.shape)}, expected {expected}")
        if self.public is not None and self.public.shape[1:] != self.image_shape:
            found = tuple(self.public.shape)
            raise LeakpipeError(f"public: shape {found}, expected (images, {', '.join(map(str, self.image_shape))})")
        if self.defense is not None and (aggregated := count_aggregated(self.defense)) != len(self.clients):
            raise LeakpipeError(
                f"cohort: {len(self.cohort)} other clients, expected {aggregated - 1} for the defence's "
                f"aggregate of {aggregated} clients"
            )

    def _harmonise(self) -> None:
        """Makes names and dtypes those of the model, and notes what that changed."""
        notes = list(self.notes)
        before = harmonise_model(self.before, notes.append)
        update = harmonise_update(self.update, before, notes.append)
        settings = harmonise_settings(self.settings, before, steps=update.steps, note=notes.append)
        dtype = next(iter(before.weights.values())).dtype if before.weights else torch.float32

        def converted(client: KnownClient) -> KnownClient:
            if client.prior is None or client.prior.dtype == dtype:
                return client
            return replace(client, prior=client.prior.to(dtype))

        parts = {
            "before": before,
            "update": update,
            "settings": settings,
            "client": converted(self.client),
            "cohort": [converted(client) for client in self.cohort],
            "notes": tuple(notes),
        }
        for name, value in parts.items():
            object.__setattr__(self, name, value)

    def to(self, device: torch.device) -> "Observation":
        """Returns the same on a device; an attack runs where its observation is."""
        exact = self.exact_statistics
        if exact is not None:
            exact = {n: replace(v, mean=v.mean.to(device), variance=v.variance.to(device)) for n, v in exact.items()}
        return replace(
            self,
            before=self.before.to(device),
            update=self.update.to(device),
            client=self.client.to(device),
            cohort=[client.to(device) for client in self.cohort],
            exact_statistics=exact,
            public=None if self.public is None else self.public.to(device),
        )

    @property
    def clients(self) -> tuple[KnownClient, ...]:
        """All clients whose training the update contains, the attacked one first; candidates are in this order."""
        return self.client, *self.cohort

    @property
    def candidates(self) -> int:
        """The number of images that the update is made of."""
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
        """Returns whether any weight moved: a client whose loss is zero sends a zero update."""
        return any(bool(value.any()) for value in self.update.weights.values())


def usable_settings(observation: Observation, settings: AttackSettings) -> tuple[AttackSettings, list[str]]:
    """Compares what an attack needs with what the attacker has, and adapts the settings where that helps.

    The zero update of a client whose loss is zero says nothing of its images, while its running statistics still do:
    the attack then falls back on them, and a note says so. Where a defence withholds running statistics, the attack
    goes on without them if it has anything else to match.

    Returns:
        The settings to attack with, and notes.

    Raises:
        LeakpipeError: The settings need something that the observation lacks.
    """
    notes = []
    if not observation.has_signal:
        notes.append("The observed weight differences are all zero: only the other terms were used.")
        matches_update = settings.batch_norm_weight > 0 and settings.batch_norm != "frozen"
        if observation.update.statistics and not matches_update:
            settings = settings.model_copy(update={"batch_norm": "update", "batch_norm_weight": 1.0})
            notes.append("The attack does not match the update's batch statistics: it fell back on them.")
    withheld = bool(observation.before.statistics) and not statistics_by_layer(
        observation.before, observation.update.statistics
    )
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
    if observation.cohort:
        unfit = unfit_for_aggregates(settings, labels_known=observation.candidate_labels is not None)
        if unfit:
            raise LeakpipeError(f"the update is an aggregate of {len(observation.clients)} clients, but {unfit}")
        images, clients = observation.candidates, len(observation.clients)
        notes.append(f"The update is an aggregate: {images} candidates for its {clients} clients were searched.")
    if observation.candidate_prior is None and (settings.start == "prior" or settings.prior_weight > 0):
        raise LeakpipeError("the attack needs a prior image, but none is granted")
    return settings, notes


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
