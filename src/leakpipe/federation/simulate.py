"""Rounds of a simulated federation, and what the attacked clients share in some of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from leakpipe.client.batches import make_batches, schedule_batches
from leakpipe.client.local_update import LocalSettings, continue_training
from leakpipe.client.mixup import mix_batches
from leakpipe.client.optimizers import OptimizerState
from leakpipe.client.update import ClientUpdate, aggregate_updates
from leakpipe.data.partition import Split
from leakpipe.defenses.compose import Memory, apply_defenses
from leakpipe.defenses.flower import FlowerServer
from leakpipe.defenses.steps import count_aggregated, training_step
from leakpipe.errors import LeakpipeError
from leakpipe.federation.fedbn import own_batch_norm, without_batch_norm
from leakpipe.federation.files import CohortMember, Labels
from leakpipe.federation.server import average_updates
from leakpipe.files.storage import write_text
from leakpipe.models.layers import count_classes
from leakpipe.models.state import ModelState, Tensors, forward_frozen
from leakpipe.params.defenses import DefenseSteps, MixupParams
from leakpipe.params.federation import ClientParams, FederationParams
from leakpipe.params.privacy import DpSgdParams
from leakpipe.randomness import derive_seed


@dataclass(frozen=True)
class CapturedUpdate:
    """Everything that an honest-but-curious server holds of one client in one round.

    Attributes:
        round: The first round is 1.
        before: The global model that the client received.
        update: What the server sees: what the client shared, after defences, or the mean that contains it.
        exact_statistics: Differences of the client's running statistics before any defence, which a threat model may
            grant.
        schedule: Positions of the client's images in each local step.
        labels: Class of each of its images, by position, or 0 or 1 for each class.
        settings: How the client trained.
        cohort: The other clients whose updates are in the mean.
    """

    round: int
    client: str
    before: ModelState
    update: ClientUpdate
    exact_statistics: Tensors
    schedule: list[list[int]]
    labels: Labels
    settings: LocalSettings
    cohort: list[CohortMember] = field(default_factory=list)


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of the global model after a round, each in [0, 1]; None where the part is empty.

    With `batch_norm_sharing: local` it is the mean over clients, each with its own batch normalisation.
    """

    round: int
    test: float
    validation: float | None


@dataclass(frozen=True)
class FederationResult:
    """Captured updates in the order of rounds, and the accuracy after every round."""

    captured: list[CapturedUpdate]
    accuracy: list[Accuracy]


@dataclass
class _Client:
    """A client's data, and what it keeps from round to round.

    Attributes:
        batch_norm: Its own tensors of batch normalisation under FedBN; empty otherwise.
        memory: Remainders of the defence's steps with error feedback.
        optimizer: What its optimiser remembers.
    """

    name: str
    params: ClientParams
    images: Tensor
    labels: Tensor
    batch_norm: Tensors = field(default_factory=dict)
    memory: Memory | None = None
    optimizer: OptimizerState = field(default_factory=OptimizerState)


@dataclass(frozen=True)
class _Contribution:
    """One client's part in a round: its update before and after the defence, and how it trained."""

    client: _Client
    trained: ClientUpdate
    shared: ClientUpdate
    schedule: list[list[int]]
    settings: LocalSettings


def simulate_federation(
    initial: ModelState,
    images: Tensor,
    labels: Tensor,
    split: Split,
    params: FederationParams,
    *,
    defense: DefenseSteps,
    attacked: Sequence[str],
    seed: int,
    on_round: Callable[[Accuracy], None] = lambda _accuracy: None,
) -> FederationResult:
    """Runs federated averaging and keeps what the attacked clients share in the captured rounds.

    Args:
        images: Shape (N, channels, height, width) in [0, 1]; `split` holds indices into it.
        labels: Shape (N,), class indices, or shape (N, classes), 0 or 1 of floating dtype.
        defense: Steps that every client applies, in training or to its update, in order. Under secure aggregation
            the server sees a client's update only in the mean with those of the clients that follow it in `params`.
        attacked: Names of the clients whose updates are kept.
        seed: Determines the order of batches and the noise of defences, per round and client.
        on_round: Called after every round.

    Raises:
        LeakpipeError: The global model is no longer finite, or a defence made an update infinite.
    """
    clients = [
        _Client(name, client, images[list(held)], labels[list(held)])
        for name, client in params.clients.items()
        for held in [split.images_of(name)]
    ]
    sizes = [client.params.images for client in clients]
    state, captured, accuracy, server = initial, [], [], FlowerServer.start(defense, clients=len(clients))
    for number in range(1, params.rounds + 1):
        try:
            parts = [_contribute(client, state, params, server.steps, seed=seed, number=number) for client in clients]
            if number in params.captured_rounds:
                captured += [
                    _capture(parts[index:] + parts[:index], state, defense, number=number)
                    for index, client in enumerate(clients)
                    if client.name in attacked
                ]
            shared = [part.shared for part in parts]
            noise = torch.Generator().manual_seed(derive_seed("server-noise", seed, number))
            state = server.release(average_updates(state, shared, sizes), generator=noise)
            server = server.next_round(shared, generator=noise)
        except LeakpipeError as error:
            raise LeakpipeError(f"round {number}: {error}") from error
        test = _mean_accuracy(state, clients, images, labels, split.test)
        validation = _mean_accuracy(state, clients, images, labels, split.validation) if split.validation else None
        accuracy.append(Accuracy(number, test, validation))
        on_round(accuracy[-1])
    return FederationResult(captured, accuracy)


def write_accuracy(path: Path, accuracy: Sequence[Accuracy], *, cell: Mapping[str, object]) -> None:
    """Writes one CSV row per round: experiment, defense, seed, round, test_accuracy, validation_accuracy."""
    lines = ["experiment,defense,seed,round,test_accuracy,validation_accuracy"]
    for after in accuracy:
        validation = "" if after.validation is None else after.validation
        lines.append(f"{cell['experiment']},{cell['defense']},{cell['seed']},{after.round},{after.test},{validation}")
    write_text(path, "\n".join(lines) + "\n")


def measure_accuracy(state: ModelState, images: Tensor, labels: Tensor, indices: Sequence[int]) -> float:
    """Returns the share of the images at `indices` that the model, in evaluation mode, classifies correctly.

    Where an image has several labels, it is the share of all labels that are right: present where logits are above 0.
    """
    chosen = torch.tensor(indices, device=images.device)
    with torch.no_grad():
        logits = torch.cat([forward_frozen(state, images[part]) for part in chosen.split(256)])
    predicted = (logits > 0).to(labels) if labels.dim() > 1 else logits.argmax(dim=1)
    return (predicted == labels[chosen]).double().mean().item()


def _mean_accuracy(
    state: ModelState, clients: Sequence[_Client], images: Tensor, labels: Tensor, indices: Sequence[int]
) -> float:
    """Returns the accuracy of the global model, or under FedBN its mean over the clients' own models."""
    if not any(client.batch_norm for client in clients):
        return measure_accuracy(state, images, labels, indices)
    models = [state.replacing(client.batch_norm) for client in clients]
    return fmean(measure_accuracy(model, images, labels, indices) for model in models)


def _contribute(
    client: _Client, state: ModelState, params: FederationParams, defense: DefenseSteps, *, seed: int, number: int
) -> _Contribution:
    """Trains a client in one round and defends its update; the client keeps what it needs for the next round."""

    def generator(purpose: str) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(purpose, seed, number, client.name))

    begun = state.replacing(client.batch_norm)
    epochs = client.params.local_epochs or params.local_epochs
    schedule = schedule_batches(client.params.images, client.params.batch_size, epochs, generator("batches"))
    batches, in_training = make_batches(client.images, client.labels, schedule), training_step(defense)
    if isinstance(in_training, MixupParams):
        drawn = derive_seed("mixup", seed, number, client.name)
        batches = mix_batches(batches, alpha=in_training.alpha, classes=count_classes(state), seed=drawn)
    settings = LocalSettings(
        learning_rate=client.params.learning_rate or params.learning_rate,
        batch_norm_momentum=params.batch_norm_momentum,
        training=client.params.training or params.training,
        dp_sgd=in_training if isinstance(in_training, DpSgdParams) else None,
    )
    trained, optimizer = continue_training(begun, batches, settings, client.optimizer, noise=generator("dp-sgd"))
    if settings.training.optimizer_state == "kept":
        client.optimizer = optimizer
    if params.batch_norm_sharing == "local":
        client.batch_norm, trained = own_batch_norm(begun, trained), without_batch_norm(state, trained)
    defended = apply_defenses(trained, defense, generator=generator("defense"), memory=client.memory)
    client.memory = defended.memory
    return _Contribution(client, trained, defended.update, schedule, settings)


def _capture(
    in_circle: Sequence[_Contribution], state: ModelState, defense: DefenseSteps, *, number: int
) -> CapturedUpdate:
    """Returns what the server sees of the first client: its update, or the mean with the clients that follow it."""
    first, *others = in_circle[: count_aggregated(defense)]
    seen = first.shared
    if others:
        seen = aggregate_updates(
            [part.shared for part in (first, *others)], [part.client.params.images for part in (first, *others)]
        )
    return CapturedUpdate(
        round=number,
        client=first.client.name,
        before=state,
        update=seen,
        exact_statistics=first.trained.statistics,
        schedule=first.schedule,
        labels=first.client.labels.long().tolist(),
        settings=first.settings,
        cohort=[CohortMember(part.client.name, part.schedule, part.client.labels.long().tolist()) for part in others],
    )
