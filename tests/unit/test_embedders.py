"""Embedders against what their vectors should be, written down another way; weights that are missing or wrong."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import resnet50

from leakpipe.errors import LeakpipeError
from leakpipe.metrics.embedders import EMBEDDERS
from leakpipe.models.catalog import MODELS
from leakpipe.models.features import penultimate_features
from leakpipe.models.pretrained import read_published
from leakpipe.models.state import ModelState, build_module, forward_frozen, initial_state
from leakpipe.models.weights import WEIGHTS, find_weights, require_weights
from leakpipe.params.models import ModelParams
from tests.conftest import small_state

FIELD = "identifiability.embedders"


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


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where weights are looked for."""
    monkeypatch.setenv("LEAKPIPE_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("leakpipe.models.weights.find_spec", lambda _name: None)
    return tmp_path


def publish(folder: Path, name: str, tensors: object, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pretend that `tensors` are the weights that were published."""
    path = folder / WEIGHTS[name].file
    torch.save(tensors, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(WEIGHTS._things, name, dataclasses.replace(WEIGHTS[name], sha256=sha256))
    return path


@pytest.mark.parametrize(
    ("name", "classes", "prefix", "size"),
    [("imagenet-resnet50", 1000, "", 224), ("imgsim-resnet50", 768, "module.pre.", 350)],
)
def test_a_resnet_embeds_as_torchvisions_does(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, classes: int, prefix: str, size: int
) -> None:
    before = torch.random.get_rng_state()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = resnet50(weights=None, num_classes=classes).eval()
    publish(folder, name, {prefix + key: value for key, value in network.state_dict().items()}, monkeypatch)
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
        find_weights("imgsim-resnet50", field=FIELD)
    except LeakpipeError:
        pytest.skip("imgsim's weights are not installed")
    from skimage.data import lfw_subset

    face = (lfw_subset()[3] * 255).astype(np.uint8) / np.float32(255)
    (vector,) = EMBEDDERS["imgsim-resnet50"].build(None)(face[None, None])
    assert vector.shape == (768,)
    np.testing.assert_allclose(vector[[0, 1, 2, 3, -1]], [0.99948, -0.91176, -0.83355, 0.97144, -0.96825], atol=1e-4)


def test_missing_weights_are_one_sentence_with_the_fix(folder: Path) -> None:
    for name, fix in (("imagenet-resnet50", "torchvision.models.resnet50("), ("imgsim-resnet50", "pip install --no-d")):
        with pytest.raises(LeakpipeError) as caught:
            require_weights(["pixels", name], field=FIELD)
        said = str(caught.value)
        assert said.startswith(f"identifiability.embedders: the weights of {name!r} are not on this machine; ")
        assert fix in said
        assert f"as {WEIGHTS[name].file} into a folder" in said
        assert "\n" not in said
    require_weights(["pixels", "pixel-correlation", "global-model"], field=FIELD)
    (folder / "resnet50-0676ba61.pth").write_bytes(b"")
    require_weights(["imagenet-resnet50"], field=FIELD)


def test_weights_are_found_in_their_usual_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEAKPIPE_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    cached = Path(torch.hub.get_dir()) / "checkpoints" / "resnet50-0676ba61.pth"
    package = tmp_path / "site" / "imgsim"
    for path in (cached, package / "model.pth"):
        path.parent.mkdir(parents=True)
        path.touch()
    (package / "__init__.py").write_text("raise RuntimeError('the code of the package must not run')")
    monkeypatch.syspath_prepend(str(package.parent))
    assert find_weights("imagenet-resnet50", field=FIELD) == cached
    assert find_weights("imgsim-resnet50", field=FIELD) == package / "model.pth"


def test_other_weights_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "imgsim-resnet50.pth"
    path.write_bytes(b"another file")
    with pytest.raises(LeakpipeError, match=r"imgsim-resnet50.pth: SHA-256 begins with .*, expected c2cb3cac"):
        read_published("imgsim-resnet50", path)
    publish(folder, "imgsim-resnet50", {"conv1.weight": torch.zeros(1)}, monkeypatch)
    with pytest.raises(LeakpipeError, match="'imgsim-resnet50' are not those of a ResNet-50"):
        EMBEDDERS["imgsim-resnet50"].build(None)


class RunsCode:
    """Touches a file when it is unpickled."""

    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.touched,)


def test_weights_that_would_run_code_do_not(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(folder, "imgsim-resnet50", {"conv1.weight": RunsCode(folder / "touched")}, monkeypatch)
    with pytest.raises(LeakpipeError, match=r"imgsim-resnet50\.pth: is not a file of tensors: UnpicklingError"):
        EMBEDDERS["imgsim-resnet50"].build(None)
    assert not (folder / "touched").exists()
