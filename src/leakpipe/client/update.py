"""What a client shares: the differences that local training made."""

from dataclasses import dataclass

from torch import Tensor

from leakpipe.models.state import ModelState, Tensors


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


def new_running_statistics(state: ModelState, update: ClientUpdate) -> dict[str, Tensor]:
    """Running statistics of the client after training, by buffer name."""
    return {name: before + update.statistics[name] for name, before in state.statistics.items()}
