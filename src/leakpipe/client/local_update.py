"""One client's local training as ONE pure, differentiable function.

A federation calls it to train its clients. An attack calls it on candidate images and differentiates through it, so
that it inverts exactly what the client ran; the engine `double_backward` is a hand-written derivative of the same
steps, and tests compare the two.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from leakpipe.client.batches import Batch
from leakpipe.client.dp_sgd import private_gradients
from leakpipe.client.losses import training_loss
from leakpipe.client.optimizers import OptimizerState, clip_gradients, direction, step_sizes
from leakpipe.client.update import ClientUpdate
from leakpipe.errors import LeakpipeError
from leakpipe.models.batchnorm import BATCH_NORMS, BatchStatistics, update_running
from leakpipe.models.state import Forward, ModelState, Tensors, forward_frozen, forward_training, hold_network
from leakpipe.params.privacy import WHY_NO_BATCH_NORM, WHY_PLAIN_SGD, DpSgdParams
from leakpipe.params.training import TrainingParams

Seen = Mapping[str, BatchStatistics]
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class LocalSettings:
    """The training of a client.

    Attributes:
        learning_rate: η, the step size of the optimiser.
        batch_norm_momentum: Weight m of a batch in running ← (1 − m)·running + m·batch.
        batch_norm: "training" normalises with the batch and updates the running statistics, as clients do; "frozen"
            normalises with the running statistics and keeps them, as attacks published before the paper assume.
        training: Loss, precision, clipping and optimiser; the default is plain SGD on the mean cross-entropy.
        dp_sgd: How gradients are clipped and noised; None is none of it.
        softening: Of Adam's directions (`leakpipe.client.optimizers.direction`); clients have none.
    """

    learning_rate: float
    batch_norm_momentum: float = 0.1
    batch_norm: Literal["training", "frozen"] = "training"
    training: TrainingParams = field(default_factory=TrainingParams)
    dp_sgd: DpSgdParams | None = None
    softening: float = 0.0


@dataclass(frozen=True)
class _Progress:
    """A client in the middle of its round: what has changed since it began.

    Attributes:
        changes: Of the weights.
        running: The running statistics.
        optimizer: What the optimiser remembers.
    """

    changes: Tensors
    running: Tensors
    optimizer: OptimizerState


def local_update(
    state: ModelState, batches: Sequence[Batch], settings: LocalSettings, *, noise: torch.Generator | None = None
) -> ClientUpdate:
    """Trains on the batches in order, with a fresh optimiser; one batch is one step unless gradients are accumulated.

    The arguments do not change. If the images or labels of a batch require a gradient, so does the update: each
    difference, of weights and of running statistics, can be differentiated in them through all steps.

    Args:
        state: The global model W_t.
        batches: One or more; several epochs are the batches of one epoch after those of the other.
        noise: Draws the noise of DP-SGD. An attack does not know the client's noise and simulates DP-SGD without any
            (`noise_multiplier` 0).

    Returns:
        ΔW = −Σ_k η_k d_k, summed step by step, with d_k the optimiser's direction (the loss's gradient for plain SGD),
        and the differences of the running statistics (the running variance takes the UNBIASED variance of each batch,
        as torch does).

    Raises:
        LeakpipeError: DP-SGD is to train a network with batch normalisation or by anything but plain SGD, or has noise
            and no generator.
    """
    return continue_training(state, batches, settings, OptimizerState(), noise=noise)[0]


def continue_training(
    state: ModelState,
    batches: Sequence[Batch],
    settings: LocalSettings,
    optimizer: OptimizerState,
    *,
    noise: torch.Generator | None = None,
) -> tuple[ClientUpdate, OptimizerState]:
    """As `local_update`, from an optimiser that remembers earlier rounds; returns also what it remembers then."""
    if settings.dp_sgd is not None:
        _check_private(state, settings)
    differentiable = any(batch.images.requires_grad or batch.labels.requires_grad for batch in batches)
    size, frozen = settings.training.accumulation, settings.batch_norm == "frozen"
    groups = [batches[first : first + size] for first in range(0, len(batches), size)]
    rates = step_sizes(settings.learning_rate, settings.training.schedule, len(groups))
    begun = _Progress(
        {name: torch.zeros_like(weight) for name, weight in state.weights.items()}, state.statistics, optimizer
    )

    def train(move: Callable[[Tensors], Tensors], forward_at: Callable[[Tensors], Forward]) -> _Progress:
        client = begun
        for group, rate in zip(groups, rates, strict=True):
            weights = move(client.changes)
            client = _step(forward_at(weights), weights, client, group, settings, rate, differentiable)
        return client

    with torch.enable_grad():
        if settings.dp_sgd is not None:
            client = begun
            for batch in batches:
                client = _private_step(state, client, batch, settings, differentiable, noise)
        elif differentiable:
            client = train(partial(_moved, state.weights), lambda weights: partial(_forward, state, weights, frozen))
        else:
            held = _moved(state.weights, begun.changes)
            client = hold_network(
                state.with_tensors(held, state.statistics),
                lambda forward: train(partial(_move, held, state.weights), lambda _: forward),
                frozen=frozen,
            )
    statistic_changes = {name: client.running[name] - before for name, before in state.statistics.items()}
    return ClientUpdate(client.changes, statistic_changes, steps=len(batches)), client.optimizer


def _moved(before: Tensors, changes: Tensors) -> Tensors:
    """Returns changed weights that gradients are taken in."""
    weights = {name: value + changes[name] for name, value in before.items()}
    for weight in weights.values():
        if not weight.requires_grad:
            weight.requires_grad_()
    return weights


@torch.no_grad()
def _move(held: Tensors, before: Tensors, changes: Tensors) -> Tensors:
    """As `_moved`, in the place of earlier weights."""
    for name, weight in held.items():
        torch.add(before[name], changes[name], out=weight)
    return held


def _forward(state: ModelState, weights: Tensors, frozen: bool, images: Tensor) -> tuple[Tensor, Seen]:
    """Passes images through the network at `weights`, all of it differentiable."""
    current = state.with_tensors(weights, state.statistics)
    return (forward_frozen(current, images), {}) if frozen else forward_training(current, images)


def _step(
    forward: Forward,
    weights: Tensors,
    client: _Progress,
    group: Sequence[Batch],
    settings: LocalSettings,
    rate: float,
    differentiable: bool,
) -> _Progress:
    """Takes one step of the optimiser on the batches of `group`; `forward` is a pass at `weights`."""
    training = settings.training
    gradients: Tensors = {}
    for batch in group:
        found, seen = _gradients(forward, weights, batch, training, differentiable)
        gradients = {name: gradients[name] + value for name, value in found.items()} if gradients else found
        client = replace(client, running=update_running(client.running, seen, settings.batch_norm_momentum))
    with torch.set_grad_enabled(differentiable):
        if training.loss_scale != 1:
            gradients = {name: value / training.loss_scale for name, value in gradients.items()}
        if training.precision == "fp16" and not all(bool(value.isfinite().all()) for value in gradients.values()):
            return client
        return _follow(client, weights, gradients, settings, rate)


def follow_gradients(weights: Tensors, gradients: Sequence[Tensors], settings: LocalSettings) -> Tensors:
    """Returns ΔW of a client that found these gradients, one for each step of its optimiser, whatever its images.

    Args:
        weights: Where it starts.
        gradients: Of the same names.
        settings: How it trains.
    """
    client = _Progress({name: torch.zeros_like(weight) for name, weight in weights.items()}, {}, OptimizerState())
    rates = step_sizes(settings.learning_rate, settings.training.schedule, len(gradients))
    for found, rate in zip(gradients, rates, strict=True):
        current = {name: before + client.changes[name] for name, before in weights.items()}
        client = _follow(client, current, found, settings, rate)
    return client.changes


def _follow(client: _Progress, weights: Tensors, gradients: Tensors, settings: LocalSettings, rate: float) -> _Progress:
    """Takes one step of the optimiser from `weights`."""
    training = settings.training
    if training.proximal_weight:
        pull = training.proximal_weight
        gradients = {name: value.add(client.changes[name], alpha=pull) for name, value in gradients.items()}
    if training.clipping is not None:
        gradients = clip_gradients(gradients, training.clipping)
    directions, optimizer = direction(
        training.optimizer, weights, gradients, client.optimizer, softening=settings.softening
    )
    # `torch.sub` has the same result, and a derivative that goes through every value once more.
    changes = {name: torch.add(change, directions[name], alpha=-rate) for name, change in client.changes.items()}
    return replace(client, changes=changes, optimizer=optimizer)


def _gradients(
    forward: Forward, weights: Tensors, batch: Batch, training: TrainingParams, differentiable: bool
) -> tuple[Tensors, Seen]:
    """Returns the gradients of one batch's scaled loss in `weights`, and the batch statistics."""
    with torch.autocast(
        batch.images.device.type, AUTOCAST.get(training.precision), training.precision in AUTOCAST, cache_enabled=False
    ):
        logits, seen = forward(batch.images)
        loss = training_loss(logits, batch.labels, training.loss)
    factor = training.loss_scale / training.accumulation
    gradients = torch.autograd.grad(
        loss if factor == 1 else loss * factor,
        list(weights.values()),
        create_graph=differentiable,
        materialize_grads=True,  # 0 for weights that the network does not use
    )
    return dict(zip(weights, gradients, strict=True)), seen


def _check_private(state: ModelState, settings: LocalSettings) -> None:
    if any(isinstance(layer, BATCH_NORMS) for layer in state.module.modules()):
        raise LeakpipeError(WHY_NO_BATCH_NORM)
    if settings.training != TrainingParams(loss=settings.training.loss):
        raise LeakpipeError(WHY_PLAIN_SGD)


def _private_step(
    state: ModelState,
    client: _Progress,
    batch: Batch,
    settings: LocalSettings,
    differentiable: bool,
    noise: torch.Generator | None,
) -> _Progress:
    """Takes one step of DP-SGD; each image is a batch of its own."""
    assert settings.dp_sgd is not None

    def loss(weights: Tensors, image: Tensor, label: Tensor) -> Tensor:
        logits, _ = forward_training(state.with_tensors(weights, state.statistics), image[None])
        return training_loss(logits, label[None], settings.training.loss)

    weights = {name: before + client.changes[name] for name, before in state.weights.items()}
    gradients = private_gradients(loss, weights, batch.images, batch.labels, settings.dp_sgd, generator=noise)
    changes = {name: change - settings.learning_rate * gradients[name] for name, change in client.changes.items()}
    if not differentiable:
        changes = {name: change.detach() for name, change in changes.items()}
    return replace(client, changes=changes)
