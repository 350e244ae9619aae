"""One client's local training, as ONE pure, differentiable function.

The federation calls it to train; attacks call it on candidate images and differentiate through it, so
that they invert exactly what the client ran.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from leakpipe.client.batches import Batch
from leakpipe.client.dp_sgd import DpSgd, private_gradients
from leakpipe.client.update import ClientUpdate
from leakpipe.errors import LeakpipeError
from leakpipe.models.batchnorm import batch_norm_layers, update_running
from leakpipe.models.state import ModelState, Tensors, forward_frozen, forward_training
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
        recompute_steps: Keep nothing of a differentiable step but its result, and run it again when it is
            differentiated: the memory of one step instead of all.
        dp_sgd: Clip every image's gradient and add noise to their sum; None trains plainly.
    """

    learning_rate: float
    batch_norm_momentum: float = 0.1
    batch_norm: Literal["training", "frozen"] = "training"
    loss: Literal["cross-entropy", "binary-cross-entropy"] = "cross-entropy"
    recompute_steps: bool = False
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
    step = _recomputed_step if differentiable and settings.recompute_steps else partial(_step, noise=noise)
    with torch.enable_grad():
        for batch in batches:
            changes, running = step(state, changes, running, batch, settings, differentiable)
    statistic_changes = {name: running[name] - before for name, before in state.statistics.items()}
    return ClientUpdate(changes, statistic_changes, steps=len(batches))


def _step(
    state: ModelState,
    changes: Tensors,
    running: Tensors,
    batch: Batch,
    settings: LocalSettings,
    differentiable: bool,
    noise: torch.Generator | None = None,
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


def _recomputed_step(
    state: ModelState, changes: Tensors, running: Tensors, batch: Batch, settings: LocalSettings, _differentiable: bool
) -> tuple[Tensors, Tensors]:
    """`_step`, of which only the result is kept."""
    names = list(changes)
    buffers = list(running) if settings.batch_norm == "training" else []  # frozen ones are constants

    def run(differentiable: bool, images: Tensor, labels: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(names, tensors[: len(names)], strict=True))
        statistics = {**running, **dict(zip(buffers, tensors[len(names) :], strict=True))}
        after, moved = _step(state, given, statistics, Batch(images, labels), settings, differentiable)
        return *after.values(), *(moved[name] for name in buffers)

    moving = [running[name] for name in buffers]
    results = _Recomputed.apply(run, batch.images, batch.labels, *changes.values(), *moving)
    after = dict(zip(names, results[: len(names)], strict=True))
    return after, {**running, **dict(zip(buffers, results[len(names) :], strict=True))}


class _Recomputed(torch.autograd.Function):
    """Runs a function without keeping its graph, and once more with it when its gradient is asked for.

    torch's own checkpointing does not nest with the step's inner gradient.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, run: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.run = run  # type: ignore[attr-defined]
        ctx.save_for_backward(*inputs)
        with torch.enable_grad():
            results = run(False, *(value.detach() for value in inputs))
        return tuple(result.detach() for result in results)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs = [
            value.detach().requires_grad_(wanted)
            for value, wanted in zip(ctx.saved_tensors, ctx.needs_input_grad[1:], strict=True)  # type: ignore[attr-defined]
        ]
        with torch.enable_grad():
            results = ctx.run(True, *inputs)  # type: ignore[attr-defined]
        wanted = [value for value in inputs if value.requires_grad]
        used = [(result, gradient) for result, gradient in zip(results, gradients, strict=True) if result.requires_grad]
        found = iter(torch.autograd.grad([r for r, _ in used], wanted, [g for _, g in used], allow_unused=True))
        return None, *(next(found) if value.requires_grad else None for value in inputs)
