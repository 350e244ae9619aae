"""The batch-normalisation term: how far candidates' batch statistics are from those that the attacker knows."""

from collections.abc import Callable

import torch
from torch import Tensor

from leakpipe.attacks.adaptive import move_into
from leakpipe.attacks.distances import TINY, smooth_norm
from leakpipe.attacks.problem import Problem
from leakpipe.attacks.recovered_statistics import (
    StatisticsByLayer,
    StatisticsNoise,
    recover_batch_statistics,
    recovered_noise,
    statistics_by_layer,
)
from leakpipe.attacks.terms.term import Candidates
from leakpipe.client.update import ClientUpdate
from leakpipe.models.batchnorm import BatchStatistics


class BatchStatisticsTerm:
    """Distance of the candidates' batch statistics from those of the client's batches.

    Attributes:
        target: The statistics to match: those that the update gives away, those granted exactly, or the global model's
            running statistics.
        noise: Of the defence on the target, where the attacker knows it.
    """

    name = "batch_statistics"

    def __init__(self, problem: Problem) -> None:
        self.problem, self.weight = problem, problem.settings.batch_norm_weight
        self.noise: StatisticsNoise = {}
        self.target = self._known_statistics()

    def value(self, candidates: Candidates) -> Tensor:
        """A scalar, 0 where all statistics agree."""
        statistics = candidates.explained.statistics
        measured = candidates.forward[0] if statistics is None else statistics
        target = self._target_near(candidates.explained.update)
        distance = self.problem.settings.batch_norm_distance
        if self.noise and distance == "normalized":
            return discounted_statistics_distance(measured, target, self.noise)
        return STATISTICS_DISTANCES[distance](measured, target)

    @property
    def usable(self) -> bool:
        """Returns whether any variance to match is positive."""
        return any(bool((layer.variance > 0).any()) for layer in self.target.values())

    @property
    def notes(self) -> list[str]:
        """Notes that a reader needs on the target."""
        unusable = sum(int((layer.variance <= 0).sum()) for layer in self.target.values())
        if not unusable:
            return []
        absolute = self.problem.settings.batch_norm_distance == "absolute"
        handled = "taken for as small as the noise" if self.noise else "matched as 0" if absolute else "left out"
        return [f"{unusable} channels with a recovered variance that is not positive were {handled}."]

    def _known_statistics(self) -> StatisticsByLayer:
        problem, observation = self.problem, self.problem.observation
        if problem.settings.batch_norm == "frozen":
            return statistics_by_layer(observation.before, observation.before.statistics)
        if problem.settings.batch_norm == "exact":
            assert observation.exact_statistics is not None  # `usable_settings` has seen to it
            return observation.exact_statistics
        weight = problem.weight_of_batches(observation.update)
        recovered = recover_batch_statistics(observation.before, observation.update, weight)
        if problem.adapted_update.statistic_noise:
            self.noise = recovered_noise(problem.adapted_update.statistic_noise, recovered, weight=weight)
        return recovered

    def _target_near(self, update: ClientUpdate | None) -> StatisticsByLayer:
        """The target; where the update has it within bounds, the candidates' own statistics moved into those."""
        problem = self.problem
        if update is None or not problem.bounded_statistics:
            return self.target
        bounds = problem.adapted_update.statistic_bounds
        nearest = ClientUpdate({}, move_into(bounds, update.statistics), update.steps)
        return recover_batch_statistics(problem.model, nearest, problem.weight_of_batches(nearest))


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
    device = wanted.mean.device
    sizes = torch.tensor([len(layer.mean) for layer in target.values()], device=device)
    layer_of = torch.arange(len(sizes), device=device).repeat_interleave(sizes)
    usable = wanted.variance > 0
    channels = wanted.mean.new_zeros(len(sizes)).index_add_(0, layer_of, usable.to(wanted.mean.dtype))
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
    total = next(iter(target.values())).mean.new_zeros(())
    for name, wanted in target.items():
        mean_gap = candidate[name].mean - wanted.mean
        variance_gap = candidate[name].variance - wanted.variance.clamp_min(0)
        total = total + smooth_norm(mean_gap) + smooth_norm(variance_gap)
    return total


STATISTICS_DISTANCES: dict[str, Callable[[StatisticsByLayer, StatisticsByLayer], Tensor]] = {
    "normalized": normalized_statistics_distance,
    "absolute": absolute_statistics_distance,
}
