"""The data of local steps, and the order in which a client takes its images."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One local step's data.

    Attributes:
        images: Shape (batch, channels, height, width) in [0, 1].
        labels: Class indices of shape (batch,), or a share of each class of shape (batch, classes) in [0, 1].
    """

    images: Tensor
    labels: Tensor


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


def assume_schedule(images: int, batch_size: int, epochs: int) -> list[list[int]]:
    """The schedule that an attacker assumes who is not told the order: positions in turn, alike in every epoch.

    For one epoch this is no assumption but a naming of the candidates.
    """
    positions = list(range(images))
    return [positions[start : start + batch_size] for start in range(0, images, batch_size)] * epochs
