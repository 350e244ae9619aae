"""The batches of local training, and the order in which a client takes its images. Importing this needs no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Generator, Tensor


@dataclass(frozen=True)
class Batch:
    """The data of one local step.

    Attributes:
        images: Shape (batch, channels, height, width), values in [0, 1].
        labels: Class indices of shape (batch,), or a share in [0, 1] of each class, shape (batch, classes).
    """

    images: "Tensor"
    labels: "Tensor"


def schedule_batches(images: int, batch_size: int, epochs: int, generator: "Generator") -> list[list[int]]:
    """Draws the order of a client's images: their positions in each local step, every epoch in an order of its own.

    The last batch of an epoch is smaller where `batch_size` does not divide `images`.
    """
    import torch

    schedule: list[list[int]] = []
    for _ in range(epochs):
        order = torch.randperm(images, generator=generator, device="cpu")
        schedule += [chunk.tolist() for chunk in order.split(batch_size)]
    return schedule


def assume_schedule(images: int, batch_size: int, epochs: int) -> list[list[int]]:
    """Returns the schedule that an attacker assumes without knowing the order: by position, the same in every epoch.

    For one epoch this is no assumption: it only numbers the candidates.
    """
    positions = list(range(images))
    return [positions[start : start + batch_size] for start in range(0, images, batch_size)] * epochs


def count_local_steps(images: int, batch_size: int, epochs: int) -> int:
    """Returns how many batches a client trains on in one round."""
    return ceil(images / batch_size) * epochs


def make_batches(images: "Tensor", labels: "Tensor", schedule: Sequence[Sequence[int]]) -> list[Batch]:
    """Divides images and labels into the batches of `schedule` (see `schedule_batches`)."""
    if len(schedule) == 1 and list(schedule[0]) == list(range(len(images))):
        return [Batch(images, labels)]
    return [Batch(images[list(positions)], labels[list(positions)]) for positions in schedule]
