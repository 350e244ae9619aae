"""Objectives and regularisers against naive numpy, closed forms and finite differences."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from leakpipe.attacks.objectives import cosine_distance
from leakpipe.attacks.observation import recover_batch_statistics
from leakpipe.attacks.regularizers import batch_statistics_distance, total_variation
from leakpipe.federation.local import local_update
from leakpipe.models.batchnorm import BatchStatistics
from leakpipe.models.state import forward_training
from tests.conftest import SETTINGS, small_batches, small_state


def random_tensors(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(4, size, generator=generator, dtype=torch.float64) for name, size in (("a", 3), ("b", 7))}


def test_cosine_distance_equals_numpy() -> None:
    mine, theirs = random_tensors(0), random_tensors(1)
    a, b = (np.concatenate([value.numpy().ravel() for value in part.values()]) for part in (mine, theirs))
    expected = 1 - a @ b / np.sqrt((a @ a) * (b @ b))
    assert cosine_distance(mine, theirs).item() == pytest.approx(expected, abs=1e-14)


def test_cosine_distance_closed_forms() -> None:
    mine = random_tensors(0)
    assert cosine_distance(mine, {name: 3 * value for name, value in mine.items()}).item() == pytest.approx(
        0, abs=1e-14
    )
    assert cosine_distance(mine, {name: -value for name, value in mine.items()}).item() == pytest.approx(2, abs=1e-14)
    x, y = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert cosine_distance({"w": x}, {"w": y}).item() == 1


def test_cosine_distance_of_long_vectors_keeps_its_digits() -> None:
    """Ten million equal float32 values against themselves: a float32 sum would be off by more than 1e-4."""
    value = {"w": torch.full((10_000_000,), 0.1)}
    assert abs(cosine_distance(value, value).item()) < 1e-12


def test_cosine_distance_gradient() -> None:
    theirs = random_tensors(1)
    mine = [value.requires_grad_() for value in random_tensors(0).values()]
    assert gradcheck(lambda a, b: cosine_distance({"a": a, "b": b}, theirs), mine)


def test_cosine_distance_of_a_zero_candidate_has_a_finite_gradient() -> None:
    zero = torch.zeros(3, requires_grad=True)
    distance = cosine_distance({"w": zero}, {"w": torch.ones(3)})
    (gradient,) = torch.autograd.grad(distance, zero)
    assert distance.item() == 1
    assert torch.isfinite(gradient).all()


def statistics(seed: int, channels: int = 5) -> BatchStatistics:
    generator = torch.Generator().manual_seed(seed)
    return BatchStatistics(
        torch.randn(channels, generator=generator, dtype=torch.float64),
        torch.rand(channels, generator=generator, dtype=torch.float64) + 0.5,
    )


def test_batch_statistics_distance_equals_a_naive_loop() -> None:
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
    assert batch_statistics_distance(mine, target).item() == pytest.approx(np.mean(layers), abs=1e-14)
    assert batch_statistics_distance(mine, mine).item() == 0


def test_batch_statistics_distance_leaves_out_impossible_variances() -> None:
    wanted = statistics(1)
    broken = BatchStatistics(wanted.mean, wanted.variance.clone().index_fill_(0, torch.tensor([0, 3]), -0.2))
    kept = torch.tensor([1, 2, 4])
    mine = statistics(0)
    expected = batch_statistics_distance(
        {"l": BatchStatistics(mine.mean[kept], mine.variance[kept])},
        {"l": BatchStatistics(wanted.mean[kept], wanted.variance[kept])},
    )
    torch.testing.assert_close(batch_statistics_distance({"l": mine}, {"l": broken}), expected)
    hopeless = BatchStatistics(wanted.mean, -wanted.variance)
    assert batch_statistics_distance({"l": mine}, {"l": hopeless}).item() == 0


def test_batch_statistics_distance_gradient() -> None:
    target, mine = {"l": statistics(1)}, statistics(0)
    inputs = [mine.mean.requires_grad_(), mine.variance.requires_grad_()]
    assert gradcheck(
        lambda mean, variance: batch_statistics_distance({"l": BatchStatistics(mean, variance)}, target), inputs
    )


def test_total_variation_equals_numpy_and_closed_forms() -> None:
    images = torch.rand(3, 2, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    array = images.numpy()
    expected = np.abs(np.diff(array, axis=2)).mean() + np.abs(np.diff(array, axis=3)).mean()
    assert total_variation(images).item() == pytest.approx(expected, abs=1e-15)
    assert total_variation(torch.full((1, 1, 4, 4), 0.3)).item() == 0
    ramp = torch.arange(4.0).expand(1, 1, 4, 4)
    assert total_variation(ramp).item() == 1
    assert gradcheck(total_variation, images.requires_grad_())


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
    frozen = dict(state.weights)
    update = local_update(state, batches, type(SETTINGS)(learning_rate=1e-12))
    means = [
        forward_training(state.with_tensors(frozen, state.statistics), b.images)[1]["features.1"].mean for b in batches
    ]
    weights = np.array([0.9**2, 0.9, 1]) * 0.1
    expected = sum(w * m for w, m in zip(weights / weights.sum(), means, strict=True))
    torch.testing.assert_close(recover_batch_statistics(state, update, 0.1)["features.1"].mean, expected)
