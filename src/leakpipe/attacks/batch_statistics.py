"""The batch-normalisation term: how far candidates' batch statistics are from those the attacker knows."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from leakpipe.attacks.numerics import TINY, smooth_norm
from leakpipe.client.update import ClientUpdate
from leakpipe.models.batchnorm import BatchStatistics, batch_norm_layers, mean_name, variance_name
from leakpipe.models.state import ModelState, Tensors

StatisticsByLayer = Mapping[str, BatchStatistics]
StatisticsNoise = Mapping[str, tuple[float, float]]  # of means and of variances, by layer


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


def recovered_noise(noise: Mapping[str, float], layers: Iterable[str], *, weight: float) -> StatisticsNoise:
    """Standard deviation of the noise on each recovered mean and variance, by layer name.

    Args:
        noise: Of each difference of running statistics, by buffer name.
        layers: Batch-normalisation layers.
        weight: That the statistics are recovered with.
    """
    return {layer: (noise[mean_name(layer)] / weight, noise[variance_name(layer)] / weight) for layer in layers}


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
    wanted, found = _side_by_side(target), _side_by_side({name: candidate[name] for name in target})
    sizes = torch.tensor([len(layer.mean) for layer in target.values()])
    layer_of = torch.arange(len(sizes)).repeat_interleave(sizes)
    usable = wanted.variance > 0
    channels = torch.zeros(len(sizes), dtype=wanted.mean.dtype).index_add_(0, layer_of, usable.to(wanted.mean.dtype))
    weights = usable / (channels[layer_of] * channels.count_nonzero()).clamp_min(1)
    variance = torch.where(usable, wanted.variance, 1.0)
    deviation_gap = found.variance.clamp_min(TINY).sqrt() - variance.sqrt()
    return ((found.mean - wanted.mean).square() + deviation_gap.square()).mul(weights / variance).sum()


def _side_by_side(statistics: StatisticsByLayer) -> BatchStatistics:
    """The channels of all layers in a row: a network has dozens of layers, each of few channels."""
    layers = list(statistics.values())
    return BatchStatistics(torch.cat([each.mean for each in layers]), torch.cat([each.variance for each in layers]))


def discounted_statistics_distance(
    candidate: StatisticsByLayer, target: StatisticsByLayer, noise: StatisticsNoise
) -> Tensor:
    """`normalized_statistics_distance` where the noise on the target is known: the noisier, the less a value counts.

    Per layer (μ − μ*)² / (σ*² + e²) + (σ − σ*)² / (σ*² + f²), averaged over channels, then over layers; e is the
    deviation of the noise on the mean, and f = g / 2σ* what noise of deviation g on the variance makes of a standard
    deviation. Noise without bias leaves the gradient right on average, so no channel is left out: one whose variance
    came out as 0 or below is taken to have none, and to be as uncertain as if σ*² were g.

    Args:
        noise: By layer name, as `recovered_noise` returns it.
    """
    layers = []
    for name, wanted in target.items():
        mean_noise, variance_noise = noise[name]
        variance = torch.where(wanted.variance > 0, wanted.variance, variance_noise).clamp_min(TINY)
        mean_gap = candidate[name].mean - wanted.mean
        deviation_gap = candidate[name].variance.clamp_min(TINY).sqrt() - wanted.variance.clamp_min(0).sqrt()
        means = mean_gap.square() / (variance + mean_noise**2)
        deviations = deviation_gap.square() / (variance + variance_noise**2 / (4 * variance))
        layers.append((means + deviations).mean())
    return torch.stack(layers).mean()


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
