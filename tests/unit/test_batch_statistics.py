"""The batch-normalisation term: recovered statistics against forward passes, distances against naive loops."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from leakpipe.attacks.recovered_statistics import recover_batch_statistics, statistics_by_layer
from leakpipe.attacks.terms.batch_statistics import (
    STATISTICS_DISTANCES,
    absolute_statistics_distance,
    discounted_statistics_distance,
    normalized_statistics_distance,
)
from leakpipe.client.local_update import LocalSettings, local_update
from leakpipe.client.update import ClientUpdate
from leakpipe.models.batchnorm import BatchStatistics
from leakpipe.models.state import forward_training
from tests.conftest import SETTINGS, small_batches, small_state


def statistics(seed: int, channels: int = 5) -> BatchStatistics:
    generator = torch.Generator().manual_seed(seed)
    return BatchStatistics(
        torch.randn(channels, generator=generator, dtype=torch.float64),
        torch.rand(channels, generator=generator, dtype=torch.float64) + 0.5,
    )


def with_negative_variances(wanted: BatchStatistics, *channels: int) -> BatchStatistics:
    channel = torch.arange(len(wanted.variance))
    negative = torch.isin(channel, torch.tensor(channels, dtype=torch.int64))
    return BatchStatistics(wanted.mean, torch.where(negative, -0.2, wanted.variance))


def test_normalized_distance_equals_a_naive_loop() -> None:
    mine = {"first": statistics(0), "second": statistics(1, 3)}
    target = {"first": statistics(2), "second": statistics(3, 3)}
    layers = []
    for name in mine:
        channels = []
        for c in range(len(mine[name].mean)):
            variance = target[name].variance[c].item()
            mean_gap = mine[name].mean[c].item() - target[name].mean[c].item()
            deviation_gap = mine[name].variance[c].item() ** 0.5 - variance**0.5
            channels.append((mean_gap**2 + deviation_gap**2) / variance)
        layers.append(np.mean(channels))
    assert normalized_statistics_distance(mine, target).item() == pytest.approx(np.mean(layers), abs=1e-14)


def test_absolute_distance_equals_naive_numpy() -> None:
    mine = {"first": statistics(0), "second": statistics(1, 3)}
    target = {"first": statistics(2), "second": with_negative_variances(statistics(3, 3), 1)}
    expected = 0.0
    for name, wanted in target.items():
        variance = np.where(wanted.variance.numpy() < 0, 0, wanted.variance.numpy())  # matched as 0
        expected += np.linalg.norm(mine[name].mean.numpy() - wanted.mean.numpy())
        expected += np.linalg.norm(mine[name].variance.numpy() - variance)
    assert absolute_statistics_distance(mine, target).item() == pytest.approx(expected, rel=1e-11)


def test_distances_of_shifted_statistics_have_closed_forms() -> None:
    """Means 2 and variance 4 against means 0 and variance 1, in 4 channels of 2 layers."""
    mine = BatchStatistics(torch.full((4,), 2.0), torch.full((4,), 4.0))
    wanted = BatchStatistics(torch.zeros(4), torch.ones(4))
    two, target = {"a": mine, "b": mine}, {"a": wanted, "b": wanted}
    assert normalized_statistics_distance(two, target).item() == pytest.approx(2**2 + (2 - 1) ** 2)
    assert absolute_statistics_distance(two, target).item() == pytest.approx(2 * (2 * 2 + 2 * 3))


@pytest.mark.parametrize("name", STATISTICS_DISTANCES)
def test_distance_to_itself_is_zero_with_a_finite_gradient(name: str) -> None:
    mine, target = statistics(0), statistics(0)
    inputs = [mine.mean.requires_grad_(), mine.variance.requires_grad_()]
    distance = STATISTICS_DISTANCES[name]({"l": mine}, {"l": target})
    assert distance.item() == pytest.approx(0, abs=3e-6)
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(distance, inputs))


def test_normalized_distance_leaves_out_impossible_variances() -> None:
    mine, wanted, kept = statistics(0), statistics(1), torch.tensor([1, 2, 4])
    expected = normalized_statistics_distance(
        {"l": BatchStatistics(mine.mean[kept], mine.variance[kept])},
        {"l": BatchStatistics(wanted.mean[kept], wanted.variance[kept])},
    )
    broken = with_negative_variances(wanted, 0, 3)
    torch.testing.assert_close(normalized_statistics_distance({"l": mine}, {"l": broken}), expected)
    both = normalized_statistics_distance(
        {"l": mine, "m": mine}, {"l": broken, "m": BatchStatistics(wanted.mean, -wanted.variance)}
    )
    torch.testing.assert_close(both, expected)  # a layer without a usable channel counts for nothing
    hopeless = BatchStatistics(wanted.mean, -wanted.variance)
    assert normalized_statistics_distance({"l": mine}, {"l": hopeless}).item() == 0


def test_discounted_distance_against_a_loop_and_without_noise() -> None:
    mine, wanted = statistics(0), with_negative_variances(statistics(1), 0, 3)
    mean_noise, variance_noise = 0.7, 0.4
    expected = 0.0
    for channel in range(len(wanted.mean)):
        variance = float(wanted.variance[channel])
        certain = variance if variance > 0 else variance_noise
        expected += float(mine.mean[channel] - wanted.mean[channel]) ** 2 / (certain + mean_noise**2)
        gap = float(mine.variance[channel]) ** 0.5 - max(variance, 0.0) ** 0.5
        expected += gap**2 / (certain + (variance_noise / (2 * certain**0.5)) ** 2)
    found = discounted_statistics_distance({"l": mine}, {"l": wanted}, {"l": (mean_noise, variance_noise)})
    assert found.item() == pytest.approx(expected / len(wanted.mean), rel=1e-5)
    exact = statistics(1)
    torch.testing.assert_close(
        discounted_statistics_distance({"l": mine}, {"l": exact}, {"l": (0.0, 0.0)}),
        normalized_statistics_distance({"l": mine}, {"l": exact}),
    )
    silent = discounted_statistics_distance({"l": mine}, {"l": wanted}, {"l": (0.0, 0.0)})
    assert silent.isfinite()


def test_noise_on_a_variance_becomes_that_of_a_deviation() -> None:
    """The f = g / 2σ of `discounted_statistics_distance`, against drawn noise."""
    variance = 4 + 0.2 * torch.randn(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert variance.sqrt().std().item() == pytest.approx(0.2 / (2 * 2), rel=0.01)


@pytest.mark.parametrize("impossible", [(), (0, 3)])
@pytest.mark.parametrize("name", STATISTICS_DISTANCES)
def test_distance_gradient(name: str, impossible: tuple[int, ...]) -> None:
    target, mine = {"l": with_negative_variances(statistics(1), *impossible)}, statistics(0)
    inputs = [mine.mean.requires_grad_(), mine.variance.requires_grad_()]
    assert gradcheck(
        lambda mean, variance: STATISTICS_DISTANCES[name]({"l": BatchStatistics(mean, variance)}, target), inputs
    )


def test_recovered_statistics_are_those_of_the_batch() -> None:
    """One step: batch = (running_{t+1} − (1 − m)·running_t) / m, checked against the forward pass."""
    state, (batch,) = small_state(), small_batches(3)
    _, seen = forward_training(state, batch.images)
    recovered = recover_batch_statistics(state, local_update(state, [batch], SETTINGS), 0.1)
    assert recovered.keys() == seen.keys() == {"features.1", "features.4"}
    for layer, expected in seen.items():
        torch.testing.assert_close(recovered[layer].mean, expected.mean)
        torch.testing.assert_close(recovered[layer].variance, expected.variance)


def test_recovered_statistics_of_several_steps_are_their_weighted_mean() -> None:
    """First layer, whose input does not depend on the weights that change: weights m(1−m)^(k−1−i)."""
    state, batches = small_state(), small_batches(2, 2, 2)
    update = local_update(state, batches, LocalSettings(learning_rate=1e-12))
    means = [forward_training(state, batch.images)[1]["features.1"].mean for batch in batches]
    weights = np.array([0.9**2, 0.9, 1]) * 0.1
    expected = sum(w * m for w, m in zip(weights / weights.sum(), means, strict=True))
    torch.testing.assert_close(recover_batch_statistics(state, update, 1 - 0.9**3)["features.1"].mean, expected)


def test_recovered_statistics_start_from_the_global_ones() -> None:
    """Running statistics other than 0 and 1, one step of momentum 0.25: by hand."""
    state = small_state()
    running = {name: torch.full_like(value, 3.0) for name, value in state.statistics.items()}
    state = state.with_tensors(state.weights, running)
    change = {name: torch.full_like(value, -0.5) for name, value in running.items()}
    recovered = recover_batch_statistics(state, ClientUpdate({}, change, 1), 0.25)
    assert recovered["features.4"].mean.tolist() == [1.0] * 6  # 3 − 0.5 / 0.25
    two = recover_batch_statistics(state, ClientUpdate({}, change, 2), 0.4375)
    assert two["features.4"].variance.tolist() == pytest.approx([3 - 0.5 / 0.4375] * 6)  # 1 − 0.75²


def test_recovered_statistics_can_be_differentiated() -> None:
    state, (batch,) = small_state(), small_batches(1)

    def recovered(images: torch.Tensor) -> torch.Tensor:
        update = local_update(state, [type(batch)(images, batch.labels)], SETTINGS)
        layer = recover_batch_statistics(state, update, 0.1)["features.4"]
        return torch.cat([layer.mean, layer.variance])

    assert gradcheck(recovered, batch.images.clone().requires_grad_())


def test_statistics_by_layer_pairs_buffers() -> None:
    state = small_state()
    state.statistics["features.4.running_mean"][2] = 7.0  # type: ignore[index]
    layers = statistics_by_layer(state, state.statistics)
    assert list(layers) == ["features.1", "features.4"]
    assert layers["features.4"].mean[2] == 7
    assert layers["features.4"].variance.tolist() == [1.0] * 6
