"""The interface of engines. `leakpipe.attacks.engines.choice` chooses one by its name."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from leakpipe.client.update import ClientUpdate
from leakpipe.models.batchnorm import BatchStatistics
from leakpipe.models.state import Tensors


def laid_out(value: Tensor) -> Tensor:
    """A tensor of a network in the memory format that convolutions of few images are fastest in."""
    return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value.contiguous()


class UnfitError(Exception):
    """An engine cannot differentiate this training; the message says why."""


@dataclass(frozen=True)
class Explained:
    """The candidates of one restart against the observed update.

    Attributes:
        distance: Of the update that the candidates explain from the observed one, a float64 scalar; None where the
            attack does not compare updates.
        statistics: The candidates' batch statistics by layer; None where a forward pass has to measure them.
        update: What local training on the candidates would have sent; None where the engine did not make it.
        memory: What the engine remembers from here on.
    """

    distance: Tensor | None = None
    statistics: Mapping[str, BatchStatistics] | None = None
    update: ClientUpdate | None = None
    memory: Tensors = field(default_factory=dict)


class Engine(ABC):
    """Simulates the assumed training on candidates; what it returns can be differentiated in images and labels.

    Attributes:
        together: How many restarts are worth explaining at once.
    """

    together: int = 1

    @abstractmethod
    def explain(self, images: Tensor, labels: Tensor, memory: Tensors) -> Explained:
        """Explains the update by the candidates of one restart.

        Args:
            images: As `network_images` returns them, shape (images, channels, height, width).
            labels: As in `leakpipe.client.batches.Batch`.
            memory: Of the last call, or `initial_memory`.
        """

    def explain_together(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Mapping[str, BatchStatistics]]:
        """Distances and batch statistics of up to `together` restarts, which are the first dimension of all tensors."""
        raise NotImplementedError

    def network_images(self, images: Tensor) -> Tensor:
        """The images that the simulated client trains on."""
        return images

    def initial_memory(self) -> Tensors:
        """Returns the engine's memory before the first call; most have none."""
        return {}
