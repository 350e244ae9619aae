"""What a server sees under secure aggregation: one mean of several clients' updates."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from leakpipe.client.update import ClientUpdate


@dataclass(frozen=True)
class Companion:
    """Another client whose update is in the aggregate that holds the attacked one's.

    Attributes:
        client: Its name.
        schedule: Positions of its images in each local step.
        labels: Labels of its images, by position.
    """

    client: str
    schedule: list[list[int]]
    labels: list[int]


def aggregate_updates(updates: Sequence[ClientUpdate], images: Sequence[float]) -> ClientUpdate:
    """All that a server sees under secure aggregation (Bonawitz 2017): the updates' mean, weighted by images.

    Differentiable in the updates, so that an attacker can average those that candidates explain.

    Args:
        updates: The attacked client's first: the aggregate passes for its own, with its count of local steps.
            All share running statistics, or none does.
        images: Training images of each client, or shares of them.
    """
    total = sum(images)

    def mean(parts: Sequence[Tensor]) -> Tensor:
        return torch.stack([part * (count / total) for part, count in zip(parts, images, strict=True)]).sum(dim=0)

    first = updates[0]
    return ClientUpdate(
        {name: mean([update.weights[name] for update in updates]) for name in first.weights},
        {name: mean([update.statistics[name] for update in updates]) for name in first.statistics},
        first.steps,
    )
