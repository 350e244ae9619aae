"""One client's local training, as ONE pure, differentiable function.

The federation calls it to train; attacks call it on candidate images and differentiate through it, so
that they invert exactly what the client ran.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from leakpipe.models.batchnorm import BatchStatistics
from leakpipe.models.state import ModelState, Tensors, forward_frozen, forward_training, mean_name, variance_name


@dataclass(frozen=True)
class Batch:
    """One local step's images, shape (batch, channels, height, width) in [0, 1], and labels, shape (batch,)."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True, kw_only=True)
class LocalSettings:
    """How a client trains.

    Attributes:
        learning_rate: Step of plain SGD (no momentum, no weight decay).
        batch_norm_momentum: Weight m of a batch in running ← (1 − m)·running + m·batch.
        batch_norm: "training": normalise with the batch and update the running statistics, as clients
            do; "frozen": normalise with the running statistics and leave them, as attacks published
            before the paper believe.
    """

    learning_rate: float
    batch_norm_momentum: float = 0.1
    batch_norm: Literal["training", "frozen"] = "training"


@dataclass(frozen=True)
class ClientUpdate:
    """What a client shares: differences to the global model, after minus before.

    Attributes:
        weights: ΔW by parameter name.
        statistics: Differences of the running statistics by buffer name. The new running statistics are
            the global ones plus these (`new_running_statistics`).
        steps: Local steps taken (what torch counts in `num_batches_tracked`).
    """

    weights: Tensors
    statistics: Tensors
    steps: int


def local_update(state: ModelState, batches: Sequence[Batch], settings: LocalSettings) -> ClientUpdate:
    """Train one step on each batch, in order, with SGD on the mean cross-entropy.

    Nothing passed in changes. If the images of a batch require a gradient, so does the update: every
    difference, of weights and of running statistics, can be differentiated with respect to the images
    (through all steps). Several epochs are the batches of each epoch one after the other.

    Args:
        state: The global model W_t.
        batches: At least one; labels are class indices.

    Returns:
        ΔW = −η Σ_k ∇loss_k, summed step by step, and the differences of the running statistics (the
        running variance takes each batch's UNBIASED variance, as torch does).
    """
    differentiable = any(batch.images.requires_grad for batch in batches)
    weight_changes: dict[str, Tensor] = {name: torch.zeros_like(weight) for name, weight in state.weights.items()}
    running = dict(state.statistics)
    with torch.enable_grad():
        for step, batch in enumerate(batches):
            weights = _step_weights(state.weights, weight_changes, first=step == 0, differentiable=differentiable)
            current = state.with_tensors(weights, running)
            if settings.batch_norm == "training":
                logits, seen = forward_training(current, batch.images)
                running = _update_running(running, seen, settings.batch_norm_momentum, differentiable=differentiable)
            else:
                logits = forward_frozen(current, batch.images)
            gradients = torch.autograd.grad(
                cross_entropy(logits, batch.labels), list(weights.values()), create_graph=differentiable
            )
            for name, gradient in zip(weights, gradients, strict=True):
                weight_changes[name] = weight_changes[name] - settings.learning_rate * gradient
    statistic_changes = {name: running[name] - before for name, before in state.statistics.items()}
    return ClientUpdate(weight_changes, statistic_changes, steps=len(batches))


def _step_weights(before: Tensors, changes: Tensors, *, first: bool, differentiable: bool) -> dict[str, Tensor]:
    """Weights that the step's gradient is taken at, each requiring a gradient."""
    if first or not differentiable:
        return {name: (weight + changes[name]).detach().requires_grad_() for name, weight in before.items()}
    return {name: weight + changes[name] for name, weight in before.items()}


def _update_running(
    running: Tensors, seen: dict[str, BatchStatistics], momentum: float, *, differentiable: bool
) -> dict[str, Tensor]:
    updated = dict(running)
    for layer, batch in seen.items():
        for name, value in ((mean_name(layer), batch.mean), (variance_name(layer), batch.variance)):
            value = value if differentiable else value.detach()
            updated[name] = (1 - momentum) * running[name] + momentum * value
    return updated


def new_running_statistics(state: ModelState, update: ClientUpdate) -> dict[str, Tensor]:
    """Running statistics of the client after training, by buffer name."""
    return {name: before + update.statistics[name] for name, before in state.statistics.items()}


def schedule_batches(images: int, batch_size: int, epochs: int, generator: torch.Generator) -> list[list[int]]:
    """Positions of a client's images in each local step: every epoch in a fresh random order.

    The last batch of an epoch is smaller where `batch_size` does not divide `images`.
    """
    schedule: list[list[int]] = []
    for _ in range(epochs):
        order = torch.randperm(images, generator=generator)
        schedule += [chunk.tolist() for chunk in order.split(batch_size)]
    return schedule


def make_batches(images: Tensor, labels: Tensor, schedule: Sequence[Sequence[int]]) -> list[Batch]:
    """Cut images and labels into the batches of `schedule` (see `schedule_batches`)."""
    if len(schedule) == 1 and list(schedule[0]) == list(range(len(images))):
        return [Batch(images, labels)]
    return [Batch(images[list(positions)], labels[list(positions)]) for positions in schedule]
