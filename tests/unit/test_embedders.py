"""Embedders against what their vectors should be, written down another way."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import resnet50

from leakpipe.errors import LeakpipeError
from leakpipe.metrics.embedders import EMBEDDERS
from leakpipe.models.catalog import MODELS
from leakpipe.models.features import penultimate_features
from leakpipe.models.state import ModelState, build_module, forward_frozen, initial_state
from leakpipe.models.weights import find_weights
from leakpipe.params.models import ModelParams
from tests.conftest import small_state
from tests.unit.published import publish


def pictures(count: int, *, channels: int = 1, size: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, channels, size, size), dtype=np.float32)


def trained(state: ModelState) -> ModelState:
    """The same with running statistics as no untrained model has them."""
    generator = torch.Generator().manual_seed(5)
    moved = {name: value + torch.rand(value.shape, generator=generator) for name, value in state.statistics.items()}
    return state.with_tensors(state.weights, moved)


def test_distances_of_pixels_are_mean_squared_errors() -> None:
    images = pictures(2, channels=3)
    first, second = EMBEDDERS["pixels"].build(None)(images)
    assert np.sum((first - second) ** 2) / first.size == pytest.approx(np.mean((images[0] - images[1]) ** 2))


def test_distances_of_pixel_correlation_are_correlations() -> None:
    images = pictures(3)
    embed = EMBEDDERS["pixel-correlation"].build(None)
    first, second, _ = embed(images)
    expected = np.corrcoef(images[0].ravel(), images[1].ravel())[0, 1]
    assert 1 - np.sum((first - second) ** 2) / 2 == pytest.approx(expected, abs=1e-6)
    np.testing.assert_allclose(embed(0.2 + 0.3 * images), embed(images), atol=1e-6)
    assert not embed(np.full_like(images, 0.5)).any()


@pytest.mark.parametrize("name", MODELS)
def test_features_are_what_the_last_layer_reads(name: str) -> None:
    """The logits are a linear map of them, with the last layer's own weights."""
    state = trained(initial_state(build_module(ModelParams(name=name), classes=3, image_size=32), seed=1))
    images = torch.from_numpy(pictures(4, size=32))
    if MODELS[name].axes == 3:
        images = images[:, :, None].expand(-1, -1, 32, -1, -1)
    features = penultimate_features(state, images)
    *_, weight, bias = state.weights.values()
    torch.testing.assert_close(features @ weight.T + bias, forward_frozen(state, images).detach())
    assert not features.requires_grad


def test_an_image_has_the_same_features_in_any_company() -> None:
    """Evaluation mode: otherwise a reconstruction would be compared in the light of the others in its batch."""
    state = trained(small_state(dtype=torch.float32))
    embed, images = EMBEDDERS["global-model"].build(state), pictures(70)
    together = embed(images)
    np.testing.assert_allclose(together, np.concatenate([embed(images[i : i + 1]) for i in range(70)]), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    other = EMBEDDERS["global-model"].build(trained(small_state(seed=1, dtype=torch.float32)))
    assert not np.allclose(other(images), together)


def test_the_global_model_is_needed() -> None:
    with pytest.raises(LeakpipeError, match="'global-model' needs the global model of the attacked round"):
        EMBEDDERS["global-model"].build(None)
    assert {name for name in EMBEDDERS if EMBEDDERS[name].uses_global_model} == {"global-model"}


@pytest.mark.parametrize(
    ("name", "classes", "prefix", "size"),
    [("imagenet-resnet50", 1000, "", 224), ("imgsim-resnet50", 768, "module.pre.", 350)],
)
def test_a_resnet_embeds_as_torchvisions_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, classes: int, prefix: str, size: int
) -> None:
    before = torch.random.get_rng_state()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = resnet50(weights=None, num_classes=classes).eval()
    publish(tmp_path, name, {prefix + key: value for key, value in network.state_dict().items()}, monkeypatch)
    images = pictures(2, size=16)
    vectors = EMBEDDERS[name].build(None)(images)
    assert torch.equal(torch.random.get_rng_state(), before)

    gray = torch.nn.functional.interpolate(torch.from_numpy(images), size, mode="bilinear").repeat(1, 3, 1, 1)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    if name == "imagenet-resnet50":
        network.fc = torch.nn.Identity()
    with torch.no_grad():
        expected = network((gray - mean.view(3, 1, 1)) / std.view(3, 1, 1)).numpy()
    expected = np.tanh(expected) if name == "imgsim-resnet50" else expected / np.linalg.norm(expected, axis=1)[:, None]
    np.testing.assert_allclose(vectors, expected, atol=1e-4)


def test_imgsims_own_vector_of_a_face() -> None:
    """The first and the last value that the package itself computes, where its weights are installed."""
    try:
        find_weights("imgsim-resnet50", field="identifiability.embedders")
    except LeakpipeError:
        pytest.skip("imgsim's weights are not installed")
    from skimage.data import lfw_subset

    face = (lfw_subset()[3] * 255).astype(np.uint8) / np.float32(255)
    (vector,) = EMBEDDERS["imgsim-resnet50"].build(None)(face[None, None])
    assert vector.shape == (768,)
    np.testing.assert_allclose(vector[[0, 1, 2, 3, -1]], [0.99948, -0.91176, -0.83355, 0.97144, -0.96825], atol=1e-4)


def test_weights_of_another_network_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path, "imgsim-resnet50", {"conv1.weight": torch.zeros(1)}, monkeypatch)
    with pytest.raises(LeakpipeError, match="'imgsim-resnet50' are not those of a ResNet-50"):
        EMBEDDERS["imgsim-resnet50"].build(None)
