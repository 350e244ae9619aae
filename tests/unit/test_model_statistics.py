"""Batch statistics in either mode against numpy and torch; the input's normalisation and its inverse."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from leakpipe.client.batches import Batch
from leakpipe.client.local_update import local_update
from leakpipe.models.batchnorm import BatchStatistics, batch_norm_layers
from leakpipe.models.layers import record_layer_inputs
from leakpipe.models.preprocessing import normalize_input, undo_normalization
from leakpipe.models.state import ModelState, forward_frozen, forward_training, measure_statistics
from tests.conftest import SETTINGS, small_batches, small_state


def random_values(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_statistics_equal_numpys_and_can_be_differentiated() -> None:
    def both(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = BatchStatistics.of(values)
        return found.mean, found.with_biased_variance().variance

    values = random_values(3, 5, 4, 2)
    found = BatchStatistics.of(values)
    assert found.values == 24
    assert found.mean.numpy() == pytest.approx(values.numpy().mean(axis=(0, 2, 3)), rel=1e-12)
    assert found.variance.numpy() == pytest.approx(values.numpy().var(axis=(0, 2, 3), ddof=1), rel=1e-12)
    assert both(values)[1].numpy() == pytest.approx(values.numpy().var(axis=(0, 2, 3), ddof=0), rel=1e-12)
    assert torch.autograd.gradcheck(both, random_values(2, 3, 2, 2).requires_grad_())
    with pytest.raises(ValueError, match="2 values per channel"):
        BatchStatistics.of(random_values(1, 5, 1, 1))
    with pytest.raises(ValueError, match="only statistics of one batch"):
        BatchStatistics(torch.zeros(2), torch.ones(2)).with_biased_variance()


@pytest.mark.parametrize("frozen", [False, True])
def test_measured_statistics_are_of_every_layers_input(frozen: bool) -> None:
    """Running statistics other than 0 and 1, so that the second layer's input depends on the mode."""
    state, (batch,) = small_state(), small_batches(3)
    running = {name: value + 0.4 for name, value in state.statistics.items()}
    state = state.with_tensors(state.weights, running)
    layers = batch_norm_layers(state.module)
    with record_layer_inputs(state.module, layers) as seen:
        (forward_frozen if frozen else forward_training)(state, batch.images)
    inputs = {name: values.detach().numpy() for name, (values,) in seen.items()}
    found = measure_statistics(state, batch.images, frozen=frozen)
    assert list(found) == list(inputs) == ["features.1", "features.4"]
    for name, values in inputs.items():
        assert found[name].mean.numpy() == pytest.approx(values.mean(axis=(0, 2, 3)), rel=1e-10, abs=1e-12)
        assert found[name].variance.numpy() == pytest.approx(values.var(axis=(0, 2, 3), ddof=1), rel=1e-10)
    other = measure_statistics(state, batch.images, frozen=not frozen)
    torch.testing.assert_close(other["features.1"].mean, found["features.1"].mean, rtol=1e-12, atol=0)
    assert not torch.allclose(other["features.4"].mean, found["features.4"].mean, rtol=1e-2)


def test_statistics_of_plain_training_are_torchs_own() -> None:
    """Against `torch.nn.BatchNorm2d`, which keeps the batch's statistics at momentum 1, on the same inputs."""
    state, (batch,) = small_state(), small_batches(3)
    layers = batch_norm_layers(state.module)
    with record_layer_inputs(state.module, layers) as inputs:
        logits, found = forward_training(state, batch.images, differentiable=False)
    expected_logits, expected = forward_training(state, batch.images)
    assert torch.equal(logits, expected_logits)
    assert list(found) == list(layers)
    for name, layer in layers.items():
        torchs = nn.BatchNorm2d(layer.num_features, momentum=1.0, dtype=torch.float64)
        torchs(inputs[name][0].detach())
        assert torch.equal(found[name].mean, torchs.running_mean)
        assert torch.equal(found[name].variance, torchs.running_var)
        torch.testing.assert_close(found[name].mean, expected[name].mean, rtol=1e-12, atol=1e-15)
        torch.testing.assert_close(found[name].variance, expected[name].variance, rtol=1e-12, atol=0)


def any_network(kind: str) -> tuple[nn.Module, torch.Tensor]:
    """A network as others build it, with batch normalisation of that kind and ReLUs that work in place."""
    dimensions = {"BatchNorm1d": 0, "BatchNorm2d": 2, "BatchNorm3d": 3, "SyncBatchNorm": 2}[kind]
    mix: Any = [nn.Linear, None, nn.Conv2d, nn.Conv3d][dimensions]
    size = [2] if dimensions else []
    torch.manual_seed(0)
    layers = [mix(2, 4, *size), getattr(nn, kind)(4), nn.ReLU(inplace=True), mix(4, 5, *size), getattr(nn, kind)(5)]
    images = random_values(4, 2, *[3] * dimensions)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(5, 2)).double(), images


@pytest.mark.parametrize("kind", ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm"])
def test_any_network_trains_as_with_torch_and_keeps_its_tensors(kind: str) -> None:
    """The caller's own network, not a copy: neither its parameters nor its buffers, counters included, change."""
    network, images = any_network(kind)
    labels = torch.arange(4) % 2
    state = ModelState.of(network)
    before = copy.deepcopy(network.state_dict())
    network[1].eval()  # local training sets the mode itself

    def train(candidates: torch.Tensor) -> torch.Tensor:
        update = local_update(state, [Batch(candidates, labels)] * 2, SETTINGS)
        return torch.cat([value.flatten() for value in {**update.weights, **update.statistics}.values()])

    found, differentiated = train(images), train(images.clone().requires_grad_())
    torch.testing.assert_close(differentiated.detach(), found, rtol=0, atol=1e-14)
    assert torch.autograd.gradcheck(train, images.clone().requires_grad_(), eps=1e-6, atol=1e-6, fast_mode=True)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    optimizer = torch.optim.SGD(network.train().parameters(), lr=SETTINGS.learning_rate)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    trained = network.state_dict()
    moved = [(trained[name] - before[name]).flatten() for name in {**state.weights, **state.statistics}]
    torch.testing.assert_close(found, torch.cat(moved), rtol=0, atol=1e-14)


@pytest.mark.parametrize("channels", [1, 3])
def test_undo_normalization_is_the_inverse_of_normalize_input(channels: int) -> None:
    images = torch.rand(2, channels, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    colour = images.expand(-1, 3, -1, -1)
    torch.testing.assert_close(undo_normalization(normalize_input(images)), colour)
    torch.testing.assert_close(normalize_input(undo_normalization(images)), colour)
    for value, expected in ((0, [0.485, 0.456, 0.406]), (1, [0.714, 0.68, 0.631])):  # ImageNet's mean, one deviation up
        assert undo_normalization(torch.full((1, 1, 1, 1), float(value))).flatten().tolist() == pytest.approx(expected)
