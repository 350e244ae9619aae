"""The values of an update as one long vector, which defences measure, clip and scale.

Values are the differences of weights and running statistics only. The counter of batches (`ClientUpdate.steps`) is no
value: no defence clips it or adds noise to it, and only rules of frameworks that count it among the magnitudes read it
(`batch_counters`).
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from leakpipe.client.update import ClientUpdate
from leakpipe.params.defenses import Targets


def change_values(
    update: ClientUpdate, change: Callable[[Tensor], Tensor], *, targets: Targets = "all"
) -> ClientUpdate:
    """Applies `change` to every tensor or to those of one part; weights come first, in the order of the update."""
    weights, statistics = update.weights, update.statistics
    if targets != "statistics":
        weights = {name: change(value) for name, value in weights.items()}
    if targets != "weights":
        statistics = {name: change(value) for name, value in statistics.items()}
    return replace(update, weights=weights, statistics=statistics)


def named_values(update: ClientUpdate) -> Iterator[tuple[str, Tensor]]:
    """Yields every tensor with its name, weights first."""
    yield from update.weights.items()
    yield from update.statistics.items()


def flatten_values(update: ClientUpdate) -> Tensor:
    """Returns all values in one float64 vector, in the order of `named_values`."""
    return torch.cat([value.flatten().double() for _, value in named_values(update)])


def unflatten_values(flat: Tensor, like: ClientUpdate) -> ClientUpdate:
    """Inverts `flatten_values`: returns an update with the shapes and dtypes of `like`."""
    parts = iter(flat.split([value.numel() for _, value in named_values(like)]))
    return change_values(like, lambda value: next(parts).reshape(value.shape).to(value.dtype))


def find_percentile(magnitudes: Tensor, percentile: float) -> float:
    """Returns a percentile (linear interpolation, as numpy's) of a float64 vector; 0 if it is empty.

    torch's own quantile is limited to 16 million values.
    """
    ordered = magnitudes.sort().values
    if len(ordered) == 0:
        return 0.0
    position = percentile / 100 * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return torch.lerp(ordered[below], ordered[above], position - below).item()


def nonzero_percentile(update: ClientUpdate, percentile: float) -> float:
    """Returns a percentile of the absolute NON-ZERO values of the whole update; 0 if all are zero."""
    values = flatten_values(update)
    return find_percentile(values[values != 0].abs(), percentile)


def batch_counters(update: ClientUpdate) -> Tensor:
    """Returns by how much each counter of batches rose, float64: one per layer whose running statistics are shared."""
    device = next((value.device for _, value in named_values(update)), "cpu")
    return torch.full((len(update.statistics) // 2,), float(update.steps), dtype=torch.float64, device=device)
