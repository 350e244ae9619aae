"""One client's local training as ONE pure, differentiable function.

A federation calls it to train its clients. An attack calls it on candidate images and differentiates through it, so
that it inverts exactly what the client ran; the engine `double_backward` is a hand-written derivative of the same
steps, and tests compare the two.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from leakpipe.client.batches import Batch
from leakpipe.client.dp_sgd import private_gradients
from leakpipe.client.update import ClientUpdate
from leakpipe.errors import LeakpipeError
from leakpipe.models.batchnorm import BATCH_NORMS, update_running
from leakpipe.models.state import ModelState, Tensors, forward_frozen, forward_training
from leakpipe.params.privacy import WHY_NO_BATCH_NORM, DpSgdParams


@dataclass(frozen=True, kw_only=True)
class LocalSettings:
    """How a client trains.

    Attributes:
        learning_rate: η, the step size of SGD (no momentum, no weight decay).
        batch_norm_momentum: Weight m of a batch in running ← (1 − m)·running + m·batch.
        batch_norm: "training" normalises with the batch and updates the running statistics, as clients do; "frozen"
            normalises with the running statistics and keeps them, as attacks published before the paper assume.
        loss: "cross-entropy" is what clients minimise; "binary-cross-entropy", of each class separately, is what the
            paper's released tool simulates.
        dp_sgd: How gradients are clipped and noised; None is plain SGD.
    """

    learning_rate: float
    batch_norm_momentum: float = 0.1
    batch_norm: Literal["training", "frozen"] = "training"
    loss: Literal["cross-entropy", "binary-cross-entropy"] = "cross-entropy"
    dp_sgd: DpSgdParams | None = None


def local_update(
    state: ModelState, batches: Sequence[Batch], settings: LocalSettings, *, noise: torch.Generator | None = None
) -> ClientUpdate:
    """Trains one step of SGD on the mean loss of each batch, in order.

    The arguments do not change. If the images or labels of a batch require a gradient, so does the update: each
    difference, of weights and of running statistics, can be differentiated in them through all steps.

    Args:
        state: The global model W_t.
        batches: One or more; several epochs are the batches of one epoch after those of the other.
        noise: Draws the noise of DP-SGD. An attack does not know the client's noise and simulates DP-SGD without any
            (`noise_multiplier` 0).

    Returns:
        ΔW = −η Σ_k ∇loss_k, summed step by step, and the differences of the running statistics (the running variance
        takes the UNBIASED variance of each batch, as torch does).

    Raises:
        LeakpipeError: DP-SGD is to train a network with batch normalisation, or has noise and no generator.
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
    """Returns the weight changes and running statistics after one more step."""
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
    """Returns the weight changes after one more step of DP-SGD; each image is a batch of its own."""
    assert settings.dp_sgd is not None
    if any(isinstance(layer, BATCH_NORMS) for layer in state.module.modules()):
        raise LeakpipeError(WHY_NO_BATCH_NORM)

    def loss(weights: Tensors, image: Tensor, label: Tensor) -> Tensor:
        logits, _ = forward_training(state.with_tensors(weights, state.statistics), image[None])
        return mean_loss(logits, label[None], settings)

    weights = {name: before + changes[name] for name, before in state.weights.items()}
    gradients = private_gradients(loss, weights, batch.images, batch.labels, settings.dp_sgd, generator=noise)
    return {name: change - settings.learning_rate * gradients[name] for name, change in changes.items()}


def mean_loss(logits: Tensor, labels: Tensor, settings: LocalSettings) -> Tensor:
    """Returns the loss that clients minimise, a scalar.

    Args:
        logits: Shape (batch, classes).
        labels: As in `Batch`; binary cross-entropy needs a share of each class.
    """
    if settings.loss == "binary-cross-entropy":
        return binary_cross_entropy_with_logits(logits, labels)
    return cross_entropy(logits, labels)
