"""The batch-normalisation term: how far candidates' batch statistics are from those the attacker knows."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from leakpipe.attacks.numerics import TINY, smooth_norm
from leakpipe.federation.local import ClientUpdate
from leakpipe.models.batchnorm import BatchStatistics
from leakpipe.models.state import ModelState, Tensors, batch_norm_layers, mean_name, variance_name

StatisticsByLayer = Mapping[str, BatchStatistics]


def recover_batch_statistics(before: ModelState, update: ClientUpdate, weight: float) -> dict[str, BatchStatistics]:
    """Batch statistics that the running statistics give away, by layer name.

    One local step: batch = (running_{t+1} − (1 − m)·running_t) / m = running_t + Δ/m. With k steps the
    running value is an exponentially weighted sum of k batch statistics; what is recovered is then
    their weighted mean, running_t + Δ/(1 − (1 − m)^k). An aggregate's is the weighted mean over the steps of all
    clients: of single batches' variances, not the variance of all images together. Differentiable in the update, so
    that the same quantity can be computed of a candidate's update. A defence's noise can make a variance negative.

    Args:
        weight: Of all batches together in the new running statistics (`weight_of_batches`).
    """
    recovered = {name: running + update.statistics[name] / weight for name, running in before.statistics.items()}
    return statistics_by_layer(before, recovered)


def weight_of_batches(momentum: float, steps: Sequence[int], shares: Sequence[float] = (1.0,)) -> float:
    """Weight of all batches together in the new running statistics: Σ share·(1 − (1 − m)^steps) over the clients.

    Args:
        steps: Local steps of each client in the update: of one, or of all in an aggregate.
        shares: Weight of each of them.
    """
    return sum(share * (1 - (1 - momentum) ** count) for count, share in zip(steps, shares, strict=True))


def find_usable_channels(
    recovered: StatisticsByLayer, noise: Mapping[str, float], *, weight: float
) -> dict[str, Tensor]:
    """Which channels' statistics tell something, by layer name: booleans of shape (channels,).

    Those whose noise is at most what it is on: of the mean at most the deviation of the channel's values, of the
    variance at most the variance.

    Args:
        recovered: As `recover_batch_statistics` returns them.
        noise: Standard deviation of the noise on each difference of running statistics, by buffer name.
        weight: That they were recovered with.
    """
    usable = {}
    for layer, batch in recovered.items():
        mean_error, variance_error = (noise[name(layer)] / weight for name in (mean_name, variance_name))
        usable[layer] = (batch.variance >= mean_error**2) & (batch.variance >= variance_error) & (batch.variance > 0)
    return usable


def select_channels(statistics: StatisticsByLayer, usable: Mapping[str, Tensor]) -> dict[str, BatchStatistics]:
    """Statistics of the usable channels of those layers that have any."""
    return {
        layer: BatchStatistics(statistics[layer].mean[chosen], statistics[layer].variance[chosen])
        for layer, chosen in usable.items()
        if chosen.any()
    }


def statistics_by_layer(state: ModelState, statistics: Tensors) -> dict[str, BatchStatistics]:
    """Tensors by buffer name as statistics by layer."""
    return {
        layer: BatchStatistics(statistics[mean_name(layer)], statistics[variance_name(layer)])
        for layer in batch_norm_layers(state.module)
    }


def normalized_statistics_distance(candidate: StatisticsByLayer, target: StatisticsByLayer) -> Tensor:
    """Squared distance of means and of standard deviations, each over the target's variance.

    Per layer ((μ − μ*)² + (σ − σ*)²) / σ*², averaged over channels, then over layers. Dividing by the
    target's variance makes layers of different scale comparable. Channels whose target variance is not
    positive (noise did it) tell nothing and are left out.

    Args:
        candidate: By layer name; may require a gradient.
        target: Same layers.

    Returns:
        A scalar, 0 where all channels of all layers agree or none can be used.
    """
    layers = []
    for name, wanted in target.items():
        usable = wanted.variance > 0
        if not usable.any():
            continue
        variance = wanted.variance[usable]
        mean_gap = candidate[name].mean[usable] - wanted.mean[usable]
        deviation_gap = candidate[name].variance[usable].clamp_min(TINY).sqrt() - variance.sqrt()
        layers.append(((mean_gap.square() + deviation_gap.square()) / variance).mean())
    return torch.stack(layers).mean() if layers else torch.zeros(())


def absolute_statistics_distance(candidate: StatisticsByLayer, target: StatisticsByLayer) -> Tensor:
    """Σ_l ( ‖μ_l − μ_l*‖₂ + ‖σ²_l − σ²_l*‖₂ ), the paper's α_BN term (Hatamizadeh 2023; Yin 2021).

    Arguments as `normalized_statistics_distance`; a target variance that is not positive is matched as if it
    were 0, so that it stays a length.
    """
    total = torch.zeros(())
    for name, wanted in target.items():
        mean_gap = candidate[name].mean - wanted.mean
        variance_gap = candidate[name].variance - wanted.variance.clamp_min(0)
        total = total + smooth_norm(mean_gap) + smooth_norm(variance_gap)
    return total


STATISTICS_DISTANCES: dict[str, Callable[[StatisticsByLayer, StatisticsByLayer], Tensor]] = {
    "normalized": normalized_statistics_distance,
    "absolute": absolute_statistics_distance,
}
