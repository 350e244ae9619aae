"""FedBN (Li 2021): every client keeps its own batch normalisation and never shares it."""

from torch import Tensor

from leakpipe.client.update import ClientUpdate
from leakpipe.models.batchnorm import batch_norm_names
from leakpipe.models.state import ModelState


def own_batch_norm(state: ModelState, update: ClientUpdate) -> dict[str, Tensor]:
    """Returns the tensors of batch normalisation after local training that began at `state`, by name."""
    before = {**state.weights, **state.statistics}
    changes = {**update.weights, **update.statistics}
    return {name: before[name] + changes[name] for name in sorted(batch_norm_names(state.module))}


def without_batch_norm(state: ModelState, update: ClientUpdate) -> ClientUpdate:
    """Returns the part of an update that is shared."""
    kept = batch_norm_names(state.module)
    weights, statistics = (
        {name: value for name, value in part.items() if name not in kept}
        for part in (update.weights, update.statistics)
    )
    return ClientUpdate(weights, statistics, update.steps)
