"""Training on public images before any federation, as a server that has such images would do."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from leakpipe.client.batches import schedule_batches
from leakpipe.errors import LeakpipeError
from leakpipe.models.batchnorm import update_running
from leakpipe.models.state import ModelState, forward_training
from leakpipe.params.models import PretrainingParams

RUNNING_MOMENTUM = 0.1  # torch's default weight of a batch in the running statistics


@dataclass(frozen=True)
class Epoch:
    """State after an epoch (the first is 1), and the mean loss of its images, each measured before its step."""

    number: int
    state: ModelState
    loss: float


def pretrain(
    initial: ModelState,
    images: Tensor,
    labels: Tensor,
    params: PretrainingParams,
    *,
    seed: int,
    on_epoch: Callable[[Epoch], None] = lambda _epoch: None,
) -> ModelState:
    """Trains with torch's SGD on the mean cross-entropy, batch normalisation in training mode.

    Args:
        initial: State to start from; it does not change.
        images: Public images, shape (N, channels, height, width) in [0, 1].
        labels: Shape (N,), class indices.
        seed: Determines the order of images in each epoch.
        on_epoch: Called after every epoch.

    Raises:
        LeakpipeError: The loss is not finite.
    """
    weights = {name: value.clone().requires_grad_() for name, value in initial.weights.items()}
    running = dict(initial.statistics)
    optimizer = torch.optim.SGD(
        weights.values(), lr=params.learning_rate, momentum=params.momentum, weight_decay=params.weight_decay
    )
    generator = torch.Generator().manual_seed(seed)
    trained = initial
    for number in range(1, params.epochs + 1):
        total = 0.0
        for positions in schedule_batches(len(images), params.batch_size, 1, generator):
            logits, seen = forward_training(
                initial.with_tensors(weights, running), images[positions], differentiable=False
            )
            loss = cross_entropy(logits, labels[positions])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            running = update_running(running, seen, RUNNING_MOMENTUM)
            total += len(positions) * loss.item()
        if not math.isfinite(total):
            raise LeakpipeError(
                f"model.pretraining.learning_rate: {params.learning_rate}, expected a smaller one: training "
                f"diverged in epoch {number}"
            )
        trained = initial.with_tensors({name: value.detach() for name, value in weights.items()}, running)
        on_epoch(Epoch(number, trained, total / len(images)))
    return trained
