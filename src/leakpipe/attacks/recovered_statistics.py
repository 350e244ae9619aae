"""Batch statistics that an update's running statistics give away."""

from collections.abc import Iterable, Mapping, Sequence

from leakpipe.client.update import ClientUpdate
from leakpipe.models.batchnorm import BatchStatistics, batch_norm_layers, mean_name, variance_name
from leakpipe.models.state import ModelState, Tensors

StatisticsByLayer = Mapping[str, BatchStatistics]
StatisticsNoise = Mapping[str, tuple[float, float]]  # of means and of variances, by layer


def recover_batch_statistics(before: ModelState, update: ClientUpdate, weight: float) -> dict[str, BatchStatistics]:
    """Recovers batch statistics, by layer name, from the differences of running statistics.

    One local step: batch = (running_{t+1} − (1 − m)·running_t) / m = running_t + Δ/m. With k steps the
    running value is an exponentially weighted sum of k batch statistics, and their weighted mean is recovered:
    running_t + Δ/(1 − (1 − m)^k). From an aggregate it is the weighted mean over the steps of all clients: of the
    variances of single batches, not the variance of all images together. Differentiable in the update, so that the
    same quantity can be computed of a candidate's update. A defence's noise can make a variance negative.

    Args:
        weight: Of all batches together in the new running statistics (`weight_of_batches`).
    """
    recovered = {name: before.statistics[name] + change / weight for name, change in update.statistics.items()}
    return statistics_by_layer(before, recovered)


def weight_of_batches(momentum: float, steps: Sequence[int], shares: Sequence[float] = (1.0,)) -> float:
    """Weight of all batches together in the new running statistics: Σ share·(1 − (1 − m)^steps) over the clients.

    Args:
        steps: Local steps of each client in the update.
        shares: Weight of each of them.
    """
    return sum(share * (1 - (1 - momentum) ** count) for count, share in zip(steps, shares, strict=True))


def recovered_noise(noise: Mapping[str, float], layers: Iterable[str], *, weight: float) -> StatisticsNoise:
    """Standard deviation of the noise on each recovered mean and variance, by layer name.

    Args:
        noise: Of each difference of running statistics, by buffer name.
        layers: Batch-normalisation layers.
        weight: The one that the statistics are recovered with.
    """
    return {layer: (noise[mean_name(layer)] / weight, noise[variance_name(layer)] / weight) for layer in layers}


def statistics_by_layer(state: ModelState, statistics: Tensors) -> dict[str, BatchStatistics]:
    """Running statistics by buffer name as statistics by layer, of the layers that have both."""
    return {
        layer: BatchStatistics(statistics[mean_name(layer)], statistics[variance_name(layer)])
        for layer in batch_norm_layers(state.module)
        if mean_name(layer) in statistics and variance_name(layer) in statistics
    }
