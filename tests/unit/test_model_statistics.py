"""Batch statistics in either mode against numpy; the input's normalisation and its inverse."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from leakpipe.models.batchnorm import BatchNorm2d, BatchStatistics
from leakpipe.models.preprocessing import normalize_input, undo_normalization
from leakpipe.models.state import batch_norm_layers, forward_frozen, forward_training, measure_statistics
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
    layers = {name: layer for name, layer in state.module.named_modules() if isinstance(layer, BatchNorm2d)}
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
        assert found[name].values == statistics.values


@pytest.mark.parametrize("differentiable", [True, False])
def test_recording_leaves_nothing_behind(differentiable: bool) -> None:
    state, (batch,) = small_state(), small_batches(2)
    forward_training(state, batch.images, differentiable=differentiable)
    for layer in state.module.modules():
        if isinstance(layer, BatchNorm2d):
            assert layer.seen is None
            assert layer.recording == "no"


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
