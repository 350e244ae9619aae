"""What an attacker knows of how a client trained: sizes, and what the threat model grants of labels and order."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from leakpipe.client.batches import assume_schedule
from leakpipe.errors import LeakpipeError


@dataclass(frozen=True, kw_only=True)
class KnownClient:
    """One client's training as the attacker knows it.

    Attributes:
        images: How many images the client trained on.
        batch_size: Images in one local step (the last of an epoch may have fewer).
        epochs: Passes over the images; local steps follow from these three.
        labels: Shape (images,): class indices by position; None where they are not granted.
        schedule: Positions of the images in each local step; None where the order is not granted.
        prior: The attacker's guesses before the update, shape (images, channels, height, width) in [0, 1];
            None where there is none.

    Raises:
        LeakpipeError: Sizes contradict each other.
    """

    images: int
    batch_size: int
    epochs: int
    labels: Tensor | None = None
    schedule: Sequence[Sequence[int]] | None = None
    prior: Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("images", "batch_size", "epochs"):
            if getattr(self, name) < 1:
                raise LeakpipeError(f"{name}: {getattr(self, name)}, expected 1 or more")
        if self.schedule is not None:
            positions = sorted(position for step in self.schedule for position in step)
            if positions != sorted([*range(self.images)] * self.epochs):
                raise LeakpipeError(f"schedule: not every position below {self.images} once in each epoch")
        if self.labels is not None and self.labels.shape != (self.images,):
            raise LeakpipeError(f"labels: shape {tuple(self.labels.shape)}, expected ({self.images},)")

    @property
    def assumed_schedule(self) -> Sequence[Sequence[int]]:
        """The schedule that is granted, or else what an attacker assumes (`assume_schedule`)."""
        return self.schedule or assume_schedule(self.images, self.batch_size, self.epochs)
