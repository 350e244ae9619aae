"""Rounds of a simulated federation, and what the attacked clients shared in some of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from leakpipe.client.batches import make_batches, schedule_batches
from leakpipe.client.local_update import LocalSettings, local_update
from leakpipe.client.mixup import mix_batches
from leakpipe.client.update import ClientUpdate, aggregate_updates
from leakpipe.data.partition import Split
from leakpipe.defenses.compose import Memory, apply_defenses
from leakpipe.defenses.steps import count_aggregated, training_step
from leakpipe.errors import LeakpipeError
from leakpipe.federation.fedbn import own_batch_norm, with_own_batch_norm, without_batch_norm
from leakpipe.federation.files import CohortMember
from leakpipe.federation.server import average_updates
from leakpipe.files.storage import write_text
from leakpipe.models.batchnorm import batch_norm_layers
from leakpipe.models.layers import count_classes
from leakpipe.models.state import ModelState, Tensors, forward_frozen
from leakpipe.params.defenses import DefenseSteps, MixupParams
from leakpipe.params.federation import FederationParams
from leakpipe.params.privacy import DpSgdParams
from leakpipe.randomness import derive_seed


@dataclass(frozen=True)
class CapturedUpdate:
    """What an honest-but-curious server holds of one client in one round.

    Attributes:
        round: First round is 1.
        before: The global model that the client was sent.
        update: What the server sees of it: what it shared, after defences, or an aggregate that holds it.
        exact_statistics: Differences of its running statistics before any defence, which a threat model may grant.
        schedule: Positions of its images in each local step.
        labels: Labels of its images, by position.
        cohort: Other clients whose updates `update` is averaged with.
    """

    round: int
    client: str
    before: ModelState
    update: ClientUpdate
    exact_statistics: Tensors
    schedule: list[list[int]]
    labels: list[int]
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
    """Run federated averaging and keep what the attacked clients share in the captured rounds.

    Args:
        images: Shape (N, channels, height, width) in [0, 1]; `split` holds indices into it.
        labels: Shape (N,), class indices.
        defense: Steps that every client applies, in training or to its update before sharing it, in order. Under
            secure aggregation the server sees a client's update only averaged with those of the clients that follow it
            in `params`.
        attacked: Clients whose updates are kept.
        seed: Fixes the order of batches and the defences' noise, per round and client.
        on_round: Called after every round.

    Raises:
        LeakpipeError: The global model became non-finite, or a defence made an update so.
    """
    held = _gather_clients(images, labels, split.clients)
    layers = batch_norm_layers(initial.module)
    state = initial
    own: dict[str, Tensors] = {name: {} for name in params.clients}  # batch normalisation that clients keep
    memories: dict[str, Memory] = {}
    captured: list[CapturedUpdate] = []
    accuracy: list[Accuracy] = []
    for round_number in range(1, params.rounds + 1):
        try:
            trained: dict[str, tuple[ClientUpdate, list[list[int]]]] = {}
            for name in params.clients:
                begun = with_own_batch_norm(state, own[name])
                update, schedule = _train_client(
                    begun, name, held[name], params, defense, seed=seed, round_number=round_number
                )
                if params.batch_norm_sharing == "local":
                    own[name], update = own_batch_norm(begun, update), without_batch_norm(state, update)
                trained[name] = update, schedule
            shared: dict[str, ClientUpdate] = {}
            for name, (update, _) in trained.items():
                noise = torch.Generator().manual_seed(derive_seed("defense", seed, round_number, name))
                defended = apply_defenses(update, defense, generator=noise, memory=memories.get(name))
                shared[name], memories[name] = defended.update, defended.memory
            if round_number in params.captured_rounds:
                for name, (update, schedule) in trained.items():
                    if name in attacked:
                        others = _partners(name, params, defense)
                        seen = _seen_by_server([name, *others], shared, params)
                        granted = update.statistics, schedule, held[name][1].tolist()
                        with_it = [CohortMember(other, trained[other][1], held[other][1].tolist()) for other in others]
                        captured.append(CapturedUpdate(round_number, name, state, seen, *granted, with_it))
            images_held = [client.images for client in params.clients.values()]
            state = average_updates(state, list(shared.values()), images_held, batch_norm_layers=layers)
        except LeakpipeError as error:
            raise LeakpipeError(f"round {round_number}: {error}") from error
        accuracy.append(
            Accuracy(
                round_number,
                test=_mean_accuracy(state, own, images, labels, split.test),
                validation=_mean_accuracy(state, own, images, labels, split.validation) if split.validation else None,
            )
        )
        on_round(accuracy[-1])
    return FederationResult(captured, accuracy)


def write_accuracy(path: Path, accuracy: Sequence[Accuracy], *, cell: Mapping[str, object]) -> None:
    """Write one CSV row per round: experiment, defense, seed, round, test_accuracy, validation_accuracy."""
    lines = ["experiment,defense,seed,round,test_accuracy,validation_accuracy"]
    for after in accuracy:
        validation = "" if after.validation is None else after.validation
        lines.append(f"{cell['experiment']},{cell['defense']},{cell['seed']},{after.round},{after.test},{validation}")
    write_text(path, "\n".join(lines) + "\n")


def _mean_accuracy(
    state: ModelState, own: Mapping[str, Tensors], images: Tensor, labels: Tensor, indices: Sequence[int]
) -> float:
    """Accuracy of the global model, or its mean over clients where each has batch normalisation of its own."""
    if not any(own.values()):
        return measure_accuracy(state, images, labels, indices)
    models = [with_own_batch_norm(state, tensors) for tensors in own.values()]
    return fmean(measure_accuracy(model, images, labels, indices) for model in models)


def measure_accuracy(state: ModelState, images: Tensor, labels: Tensor, indices: Sequence[int]) -> float:
    """Share of the images at `indices` that the model, in evaluation mode, classifies correctly."""
    chosen = torch.tensor(indices)
    with torch.no_grad():
        predicted = torch.cat([forward_frozen(state, images[part]).argmax(dim=1) for part in chosen.split(256)])
    return (predicted == labels[chosen]).double().mean().item()


def _train_client(
    state: ModelState,
    name: str,
    held: tuple[Tensor, Tensor],
    params: FederationParams,
    defense: DefenseSteps,
    *,
    seed: int,
    round_number: int,
) -> tuple[ClientUpdate, list[list[int]]]:
    """One client's update before any step that acts on it, and its schedule."""
    client = params.clients[name]
    order = torch.Generator().manual_seed(derive_seed("batches", seed, round_number, name))
    epochs = client.local_epochs or params.local_epochs
    schedule = schedule_batches(client.images, client.batch_size, epochs, order)
    trained_with, batches = training_step(defense), make_batches(*held, schedule)
    if isinstance(trained_with, MixupParams):
        drawn = derive_seed("mixup", seed, round_number, name)
        batches = mix_batches(batches, alpha=trained_with.alpha, classes=count_classes(state), seed=drawn)
    settings = LocalSettings(
        learning_rate=params.learning_rate,
        batch_norm_momentum=params.batch_norm_momentum,
        dp_sgd=trained_with if isinstance(trained_with, DpSgdParams) else None,
    )
    noise = torch.Generator().manual_seed(derive_seed("dp-sgd", seed, round_number, name))
    return local_update(state, batches, settings, noise=noise), schedule


def _partners(client: str, params: FederationParams, defense: DefenseSteps) -> list[str]:
    """Clients whose updates the server sees only together with this one's: those that follow it, in a circle."""
    names = list(params.clients)
    start = names.index(client)
    return (names[start:] + names[:start])[1 : count_aggregated(defense)]


def _seen_by_server(
    together: Sequence[str], updates: Mapping[str, ClientUpdate], params: FederationParams
) -> ClientUpdate:
    """One client's update, or the mean of several clients'."""
    if len(together) == 1:
        return updates[together[0]]
    return aggregate_updates([updates[name] for name in together], [params.clients[name].images for name in together])


def _gather_clients(
    images: Tensor, labels: Tensor, clients: Mapping[str, Sequence[int]]
) -> dict[str, tuple[Tensor, Tensor]]:
    chosen = {name: torch.tensor(indices) for name, indices in clients.items()}
    return {name: (images[indices], labels[indices]) for name, indices in chosen.items()}
