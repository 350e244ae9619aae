"""Defences that bound an update or withhold a part of it."""

from dataclasses import replace

import torch

from leakpipe.client.update import ClientUpdate
from leakpipe.defenses.values import change_values, flatten_values
from leakpipe.params.defenses import ClipParams, FreezeStatisticsParams


def clip_update(update: ClientUpdate, params: ClipParams) -> ClientUpdate:
    """Scales the update down to an L2 norm of at most `clip_norm`. No guarantee: its direction is unchanged."""
    return scale_to_norm(update, params.clip_norm, order=2)


def freeze_statistics(update: ClientUpdate, _params: FreezeStatisticsParams) -> ClientUpdate:
    """Withholds running statistics; weight differences are unchanged. No guarantee."""
    return withhold_statistics(update)


def withhold_statistics(update: ClientUpdate) -> ClientUpdate:
    """Returns the update without running statistics."""
    return replace(update, statistics={})


def scale_to_norm(update: ClientUpdate, largest: float, *, order: int) -> ClientUpdate:
    """Returns the update times min(1, largest / norm); the norm of that `order` is of all values as one vector."""
    norm = torch.linalg.vector_norm(flatten_values(update), ord=order).item()
    if norm <= largest:
        return update
    return change_values(update, lambda value: (value.double() * (largest / norm)).to(value.dtype))
