"""FedBN (Li 2021): every client keeps its own batch normalisation and never shares it."""

from dataclasses import replace

from torch import Tensor

from leakpipe.client.update import ClientUpdate
from leakpipe.models.batchnorm import batch_norm_names
from leakpipe.models.state import ModelState, Tensors


def with_own_batch_norm(state: ModelState, own: Tensors) -> ModelState:
    """Returns the model with a client's own tensors of batch normalisation; `own` may be empty."""
    return state.with_tensors(_replaced(state.weights, own), _replaced(state.statistics, own))


def own_batch_norm(state: ModelState, update: ClientUpdate) -> dict[str, Tensor]:
    """Returns the tensors of batch normalisation after local training that began at `state`, by name."""
    before = {**state.weights, **state.statistics}
    changes = {**update.weights, **update.statistics}
    return {name: before[name] + changes[name] for name in sorted(batch_norm_names(state.module))}


def without_batch_norm(state: ModelState, update: ClientUpdate) -> ClientUpdate:
    """Returns the part of an update that is shared."""
    kept = batch_norm_names(state.module)
    return replace(update, weights=_without(update.weights, kept), statistics=_without(update.statistics, kept))


def _replaced(tensors: Tensors, own: Tensors) -> dict[str, Tensor]:
    return {name: own.get(name, value) for name, value in tensors.items()}


def _without(tensors: Tensors, kept: set[str]) -> dict[str, Tensor]:
    return {name: value for name, value in tensors.items() if name not in kept}
