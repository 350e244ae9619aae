"""One client's local training, as ONE pure, differentiable function.

The federation calls it to train; attacks call it on candidate images and differentiate through it, so
that they invert exactly what the client ran.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from leakpipe.client.batches import Batch
from leakpipe.client.dp_sgd import DpSgd, private_gradients
from leakpipe.client.update import ClientUpdate
from leakpipe.errors import LeakpipeError
from leakpipe.models.batchnorm import BatchStatistics
from leakpipe.models.state import (
    ModelState,
    Tensors,
    batch_norm_layers,
    forward_frozen,
    forward_training,
    mean_name,
    variance_name,
)
from leakpipe.params.privacy import WHY_NO_BATCH_NORM


@dataclass(frozen=True, kw_only=True)
class LocalSettings:
    """How a client trains.

    Attributes:
        learning_rate: Step of plain SGD (no momentum, no weight decay).
        batch_norm_momentum: Weight m of a batch in running ← (1 − m)·running + m·batch.
        batch_norm: "training": normalise with the batch and update the running statistics, as clients
            do; "frozen": normalise with the running statistics and leave them, as attacks published
            before the paper believe.
        loss: "cross-entropy", as clients train with; "binary-cross-entropy" of every class by itself is what
            the paper's released tool simulates.
        dp_sgd: Clip every image's gradient and add noise to their sum; None trains plainly.
    """

    learning_rate: float
    batch_norm_momentum: float = 0.1
    batch_norm: Literal["training", "frozen"] = "training"
    loss: Literal["cross-entropy", "binary-cross-entropy"] = "cross-entropy"
    dp_sgd: DpSgd | None = None


def local_update(
    state: ModelState, batches: Sequence[Batch], settings: LocalSettings, *, noise: torch.Generator | None = None
) -> ClientUpdate:
    """Train one step on each batch, in order, with SGD on the mean loss.

    Nothing passed in changes. If the images or labels of a batch require a gradient, so does the update: every
    difference, of weights and of running statistics, can be differentiated with respect to them (through all
    steps). Several epochs are the batches of each epoch one after the other.

    Args:
        state: The global model W_t.
        batches: At least one.
        noise: Where DP-SGD's noise is drawn from; who simulates a client, so does not know its noise, asks for none in
            `settings` instead.

    Returns:
        ΔW = −η Σ_k ∇loss_k, summed step by step, and the differences of the running statistics (the
        running variance takes each batch's UNBIASED variance, as torch does).
    """
    differentiable = any(batch.images.requires_grad or batch.labels.requires_grad for batch in batches)
    changes: Tensors = {name: torch.zeros_like(weight) for name, weight in state.weights.items()}
    running = state.statistics
    with torch.enable_grad():
        for batch in batches:
            changes, running = _step(state, changes, running, batch, settings, differentiable, noise)
    statistic_changes = {name: running[name] - before for name, before in state.statistics.items()}
    return ClientUpdate(changes, statistic_changes, steps=len(batches))


def _step(
    state: ModelState,
    changes: Tensors,
    running: Tensors,
    batch: Batch,
    settings: LocalSettings,
    differentiable: bool,
    noise: torch.Generator | None,
) -> tuple[Tensors, Tensors]:
    """Weight changes and running statistics after one more step."""
    if settings.dp_sgd is not None:
        private = _private_step(state, changes, batch, settings, noise)
        return private if differentiable else {name: change.detach() for name, change in private.items()}, running
    weights = {name: before + changes[name] for name, before in state.weights.items()}
    for weight in weights.values():
        if not weight.requires_grad:
            weight.requires_grad_()
    current = state.with_tensors(weights, running)
    if settings.batch_norm == "training":
        logits, seen = forward_training(current, batch.images, differentiable=differentiable)
        running = update_running(running, seen, settings.batch_norm_momentum)
    else:
        logits = forward_frozen(current, batch.images)
    gradients = torch.autograd.grad(
        mean_loss(logits, batch.labels, settings), list(weights.values()), create_graph=differentiable
    )
    moved = zip(changes.items(), gradients, strict=True)
    step = settings.learning_rate
    return {name: torch.sub(change, gradient, alpha=step) for (name, change), gradient in moved}, running


def _private_step(
    state: ModelState, changes: Tensors, batch: Batch, settings: LocalSettings, noise: torch.Generator | None
) -> Tensors:
    """Weight changes after one more step of DP-SGD; each image is a batch of its own."""
    assert settings.dp_sgd is not None
    if batch_norm_layers(state.module):
        raise LeakpipeError(WHY_NO_BATCH_NORM)

    def loss(weights: Tensors, image: Tensor, label: Tensor) -> Tensor:
        logits, _ = forward_training(state.with_tensors(weights, state.statistics), image[None])
        return mean_loss(logits, label[None], settings)

    weights = {name: before + changes[name] for name, before in state.weights.items()}
    gradients = private_gradients(loss, weights, batch.images, batch.labels, settings.dp_sgd, generator=noise)
    return {name: change - settings.learning_rate * gradients[name] for name, change in changes.items()}


def mean_loss(logits: Tensor, labels: Tensor, settings: LocalSettings) -> Tensor:
    """The loss that clients take steps on, a scalar.

    Args:
        logits: Shape (batch, classes).
        labels: As in `Batch`; binary cross-entropy needs shares of each class.
    """
    if settings.loss == "binary-cross-entropy":
        return binary_cross_entropy_with_logits(logits, labels)
    return cross_entropy(logits, labels)


def update_running(running: Tensors, seen: Mapping[str, BatchStatistics], momentum: float) -> dict[str, Tensor]:
    """Running statistics after one more batch: (1 − m)·running + m·batch, with its UNBIASED variance."""
    updated = dict(running)
    for layer, batch in seen.items():
        for name, value in ((mean_name(layer), batch.mean), (variance_name(layer), batch.variance)):
            updated[name] = (1 - momentum) * running[name] + momentum * value
    return updated
