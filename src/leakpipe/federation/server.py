"""The server's part of a round: federated averaging."""

from collections.abc import Sequence

import torch
from torch import Tensor

from leakpipe.client.update import ClientUpdate
from leakpipe.errors import LeakpipeError
from leakpipe.models.batchnorm import batch_norm_layers, variance_name
from leakpipe.models.state import ModelState


def average_updates(state: ModelState, updates: Sequence[ClientUpdate], images: Sequence[int]) -> ModelState:
    """Adds the mean of the updates, weighted by the clients' images, to the model: FedAvg (McMahan 2017).

    Running statistics are averaged like weights; where clients withhold tensors the server keeps its own. Noise can
    push a running variance below zero, where evaluation would give NaN, so negative variances become zero.

    Args:
        updates: One per client, as shared (after defences).
        images: Number of training images of each client.

    Raises:
        LeakpipeError: The averaged model holds a value that is not finite.
    """
    total = sum(images)
    shares = [count / total for count in images]

    def averaged(before: Tensor, changes: list[Tensor | None]) -> Tensor:
        moved = before.clone()
        for share, change in zip(shares, changes, strict=True):
            if change is not None:
                moved += share * change
        return moved

    weights = {name: averaged(old, [u.weights.get(name) for u in updates]) for name, old in state.weights.items()}
    statistics = {
        name: averaged(old, [u.statistics.get(name) for u in updates]) for name, old in state.statistics.items()
    }
    for layer in batch_norm_layers(state.module):
        statistics[variance_name(layer)].clamp_(min=0)
    for name, tensor in {**weights, **statistics}.items():
        if not torch.isfinite(tensor).all():
            raise LeakpipeError(f"the averaged model's {name!r} is not finite: training diverged")
    return state.with_tensors(weights, statistics)
