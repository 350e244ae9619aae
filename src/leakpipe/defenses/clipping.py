"""Defences that bound an update, or withhold a part of it."""

import torch

from leakpipe.client.update import ClientUpdate
from leakpipe.defenses.values import change_values, flatten_values
from leakpipe.params.defenses import ClipParams, FreezeStatisticsParams


def clip_update(update: ClientUpdate, params: ClipParams) -> ClientUpdate:
    """Scale the update down to an L2 norm of at most `clip_norm`; no guarantee by itself (its direction stays)."""
    return scale_to_norm(update, params.clip_norm, order=2)


def freeze_statistics(update: ClientUpdate, _params: FreezeStatisticsParams) -> ClientUpdate:
    """Share no running statistics; weight differences stay as they are. No guarantee."""
    return withhold_statistics(update)


def withhold_statistics(update: ClientUpdate) -> ClientUpdate:
    """The same update without running statistics."""
    return ClientUpdate(update.weights, {}, update.steps)


def scale_to_norm(update: ClientUpdate, largest: float, *, order: int) -> ClientUpdate:
    """The update times min(1, largest / norm), where the norm of that `order` is over all values as one vector."""
    norm = torch.linalg.vector_norm(flatten_values(update), ord=order).item()
    if norm <= largest:
        return update
    return change_values(update, lambda value: (value.double() * (largest / norm)).to(value.dtype))
