"""Batch statistics in either mode against numpy and torch; the input's normalisation and its inverse."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from leakpipe.models.batchnorm import BatchStatistics, batch_norm_layers, update_running
from leakpipe.models.preprocessing import normalize_input, undo_normalization
from leakpipe.models.state import ModelState, forward_frozen, forward_training, measure_statistics
from tests.conftest import small_batches, small_state


def random_values(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_statistics_equal_numpys() -> None:
    values = random_values(3, 5, 4, 2)
    found = BatchStatistics.of(values)
    assert found.values == 24
    assert found.mean.numpy() == pytest.approx(values.numpy().mean(axis=(0, 2, 3)), rel=1e-12)
    assert found.variance.numpy() == pytest.approx(values.numpy().var(axis=(0, 2, 3), ddof=1), rel=1e-12)
    biased = found.with_biased_variance()
    assert biased.variance.numpy() == pytest.approx(values.numpy().var(axis=(0, 2, 3), ddof=0), rel=1e-12)
    assert (biased.mean is found.mean, biased.values) == (True, 24)


def test_statistics_need_two_values_and_know_whether_they_are_of_one_batch() -> None:
    with pytest.raises(ValueError, match="2 values per channel"):
        BatchStatistics.of(random_values(1, 5, 1, 1))
    with pytest.raises(ValueError, match="only statistics of one batch"):
        BatchStatistics(torch.zeros(2), torch.ones(2)).with_biased_variance()


def test_statistics_can_be_differentiated() -> None:
    def both(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = BatchStatistics.of(values)
        return found.mean, found.with_biased_variance().variance

    assert torch.autograd.gradcheck(both, random_values(2, 3, 2, 2).requires_grad_())


@pytest.mark.parametrize("frozen", [False, True])
def test_measured_statistics_are_of_every_layers_input(frozen: bool) -> None:
    """Running statistics other than 0 and 1, so that the second layer's input depends on the mode."""
    state, (batch,) = small_state(), small_batches(3)
    running = {name: value + 0.4 for name, value in state.statistics.items()}
    state = state.with_tensors(state.weights, running)
    inputs: dict[str, np.ndarray] = {}
    layers = batch_norm_layers(state.module)
    hooks = [
        layer.register_forward_pre_hook(lambda _, args, name=name: inputs.update({name: args[0].numpy()}))
        for name, layer in layers.items()
    ]
    if frozen:
        forward_frozen(state, batch.images)
    else:
        forward_training(state, batch.images)
    for hook in hooks:
        hook.remove()
    found = measure_statistics(state, batch.images, frozen=frozen)
    assert list(found) == list(inputs) == ["features.1", "features.4"]
    for name, values in inputs.items():
        assert found[name].mean.numpy() == pytest.approx(values.mean(axis=(0, 2, 3)), rel=1e-10, abs=1e-12)
        assert found[name].variance.numpy() == pytest.approx(values.var(axis=(0, 2, 3), ddof=1), rel=1e-10)
    other = measure_statistics(state, batch.images, frozen=not frozen)
    assert torch.equal(other["features.1"].mean, found["features.1"].mean)
    assert not torch.allclose(other["features.4"].mean, found["features.4"].mean, rtol=1e-2)


def test_statistics_of_plain_training_are_torchs_own() -> None:
    """Against `torch.nn.BatchNorm2d`, which keeps the batch's statistics at momentum 1, on the same inputs."""
    state, (batch,) = small_state(), small_batches(3)
    layers = dict(state.module.named_modules())
    torchs = {
        name: nn.BatchNorm2d(layers[name].num_features, momentum=1.0, dtype=torch.float64)
        for name in batch_norm_layers(state.module)
    }

    def feed(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[torch.Tensor]) -> None:
            torchs[name](args[0])

        return hook

    hooks = [layers[name].register_forward_pre_hook(feed(name)) for name in torchs]
    logits, found = forward_training(state, batch.images, differentiable=False)
    for hook in hooks:
        hook.remove()
    assert list(found) == list(torchs)
    for name, layer in torchs.items():
        assert torch.equal(found[name].mean, layer.running_mean)
        assert torch.equal(found[name].variance, layer.running_var)
    expected_logits, expected = forward_training(state, batch.images)
    assert torch.equal(logits, expected_logits)
    for name, statistics in expected.items():
        assert found[name].mean.numpy() == pytest.approx(statistics.mean.numpy(), rel=1e-12, abs=1e-15)
        assert found[name].variance.numpy() == pytest.approx(statistics.variance.numpy(), rel=1e-12)


def any_network(kind: str) -> tuple[nn.Module, torch.Tensor]:
    """A network as others build it, with batch normalisation of that kind and ReLUs that work in place."""
    dimensions = {"BatchNorm1d": 0, "BatchNorm2d": 2, "BatchNorm3d": 3, "SyncBatchNorm": 2}[kind]
    mix = [nn.Linear, None, nn.Conv2d, nn.Conv3d][dimensions]
    size = [] if mix is nn.Linear else [3]
    torch.manual_seed(0)
    layers = [mix(3, 4, *size), getattr(nn, kind)(4), nn.ReLU(inplace=True), mix(4, 5, *size), getattr(nn, kind)(5)]
    batch = random_values(6, 3, *[6] * dimensions)
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(2)).double(), batch


@pytest.mark.parametrize("differentiable", [True, False])
@pytest.mark.parametrize("kind", ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm"])
def test_any_network_trains_as_with_torch_and_keeps_its_tensors(kind: str, differentiable: bool) -> None:
    """The caller's own network, not a copy: neither its tensors, the counters included, nor its settings change."""
    network, values = any_network(kind)
    network(values)
    statistics = {name: value.clone() for name, value in network.named_buffers() if ".running_" in name}
    state = ModelState(network, {name: value.detach() for name, value in network.named_parameters()}, statistics)
    before = copy.deepcopy(network.state_dict())
    logits, seen = forward_training(state, values, differentiable=differentiable)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert torch.equal(logits, network(values))  # now torch itself updates the running statistics
    expected = {name: value for name, value in network.named_buffers() if ".running_" in name}
    torch.testing.assert_close(update_running(statistics, seen, 0.1), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("channels", [1, 3])
def test_undo_normalization_is_the_inverse_of_normalize_input(channels: int) -> None:
    images = torch.rand(2, channels, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    colour = images.expand(-1, 3, -1, -1)
    torch.testing.assert_close(undo_normalization(normalize_input(images)), colour)
    torch.testing.assert_close(normalize_input(undo_normalization(images)), colour)


def test_undo_normalization_of_zero_is_imagenets_mean() -> None:
    found = undo_normalization(torch.zeros(1, 1, 1, 2))
    assert found[0, :, 0, 1].tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert undo_normalization(torch.ones(1, 3, 1, 1)).flatten().tolist() == pytest.approx([0.714, 0.68, 0.631])
