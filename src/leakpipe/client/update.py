"""The update that a client shares after local training, and the mean of several clients' updates."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from leakpipe.models.state import Tensors


@dataclass(frozen=True)
class ClientUpdate:
    """Differences that local training made to the global model: after minus before.

    Attributes:
        weights: ΔW by parameter name.
        statistics: Differences of the running statistics of batch normalisation by buffer name; empty where the
            client does not share them.
        steps: Number of local steps (torch's `num_batches_tracked`).
        removed: Names of the model's tensors that the client took out of the update, which whoever receives it can see.
    """

    weights: Tensors
    statistics: Tensors
    steps: int
    removed: frozenset[str] = frozenset()

    def to(self, device: torch.device) -> "ClientUpdate":
        """Returns the update on a device."""
        return combine_updates(lambda value: value.to(device), self)


def combine_updates(combine: Callable[..., Tensor], *updates: ClientUpdate) -> ClientUpdate:
    """Returns the update of which each tensor is `combine` of those with its name in `updates`, with the first's steps.

    Weights come first, in the order of the first update.
    """
    first = updates[0]
    return ClientUpdate(
        {name: combine(*(update.weights[name] for update in updates)) for name in first.weights},
        {name: combine(*(update.statistics[name] for update in updates)) for name in first.statistics},
        first.steps,
        first.removed,
    )


def aggregate_updates(updates: Sequence[ClientUpdate], images: Sequence[float]) -> ClientUpdate:
    """Returns the mean of updates weighted by images: all that secure aggregation shows a server (Bonawitz 2017).

    Differentiable in the updates.

    Args:
        updates: All have the same running statistics, or none. The attacked client's comes first: the aggregate
            takes its number of local steps.
        images: Number of training images of each client, or its share of them.
    """
    total = sum(images)

    def mean(*parts: Tensor) -> Tensor:
        return torch.stack([part * (count / total) for part, count in zip(parts, images, strict=True)]).sum(dim=0)

    return combine_updates(mean, *updates)
