"""LPIPS against its formula place by place, on made-up weights: the real ones are nobody's to ship here."""

from pathlib import Path

import lpips
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch.nn.functional import conv2d, max_pool2d

from leakpipe.cli.main import main
from leakpipe.errors import LeakpipeError
from leakpipe.metrics.lpips import load_lpips
from leakpipe.models.weights import LPIPS, WEIGHTS
from tests.unit.published import publish

CONVOLUTIONS = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}
STRIDES_AND_PADDINGS = {0: (4, 2), 3: (1, 2), 6: (1, 1), 8: (1, 1), 10: (1, 1)}
POOLED_AFTER = (0, 3)  # and after the last, where no layer follows


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Random weights of AlexNet's shapes, in files as torchvision and the authors of LPIPS name their tensors."""
    folder, generator = tmp_path_factory.mktemp("weights"), torch.Generator().manual_seed(0)
    features = {"classifier.6.bias": torch.zeros(1000)}
    for index, (outputs, inputs, side) in CONVOLUTIONS.items():
        scale = (2 / (inputs * side**2)) ** 0.5
        features[f"features.{index}.weight"] = scale * torch.randn(outputs, inputs, side, side, generator=generator)
        features[f"features.{index}.bias"] = 0.1 * torch.randn(outputs, generator=generator)
    linear = {
        f"lin{layer}.model.1.weight": torch.rand(1, outputs, 1, 1, generator=generator)
        for layer, (outputs, _, _) in enumerate(CONVOLUTIONS.values())
    }
    for name, tensors in zip(LPIPS, (features, linear), strict=True):
        publish(folder, name, tensors, monkeypatch)
    return folder


def naive_lpips(folder: Path, image: np.ndarray, original: np.ndarray) -> float:
    """Zhang 2018, equation 1, place by place."""
    features, linear = (torch.load(folder / WEIGHTS[name].file, weights_only=True) for name in LPIPS)
    shift, scale = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])
    layers = []
    for pixels in (image, original):
        colours = pixels if len(pixels) == 3 else np.concatenate([pixels] * 3)
        scaled = [(2 * colour - 1 - s) / r for colour, s, r in zip(colours, shift, scale, strict=True)]
        layers.append(torch.tensor(np.array(scaled), dtype=torch.float32)[None])
    total = 0.0
    for number, (index, (stride, padding)) in enumerate(STRIDES_AND_PADDINGS.items()):
        weight, bias = (features[f"features.{index}.{part}"] for part in ("weight", "bias"))
        layers = [conv2d(layer, weight, bias, stride=stride, padding=padding).clamp(min=0) for layer in layers]
        a, b = (layer[0].double().numpy() for layer in layers)
        weights = linear[f"lin{number}.model.1.weight"].flatten().double().numpy()
        distances = []
        for y in range(a.shape[1]):
            for x in range(a.shape[2]):
                units = [v[:, y, x] / (np.linalg.norm(v[:, y, x]) + 1e-10) for v in (a, b)]
                distances.append(weights @ (units[0] - units[1]) ** 2)
        total += np.mean(distances)
        if index in POOLED_AFTER:
            layers = [max_pool2d(layer, 3, 2) for layer in layers]
    return float(total)


@pytest.mark.parametrize("shape", [(1, 31, 31), (3, 40, 64)])
def test_it_is_the_formula(folder: Path, shape: tuple[int, int, int]) -> None:
    distance = load_lpips()
    original, noise = np.random.default_rng(0).random((2, *shape), dtype=np.float32)
    image = 0.5 * original + 0.5 * noise
    found = distance(image, original, data_range=1.0)
    assert found == pytest.approx(naive_lpips(folder, image, original), rel=1e-5)
    assert distance(255 * image, 255 * original, data_range=255) == pytest.approx(found, rel=1e-5)
    assert (
        0
        < distance(0.9 * original + 0.1 * noise, original, data_range=1.0)
        < found
        < distance(noise, original, data_range=1.0)
    )
    assert distance(original, original, data_range=1.0) == 0


@pytest.mark.usefixtures("folder")
def test_images_that_alexnet_cannot_take() -> None:
    distance = load_lpips()
    for shape in ((1, 30, 64), (2, 64, 64)):
        with pytest.raises(LeakpipeError, match=r"1 or 3 channels and at least 31×31 pixels, got"):
            distance(np.zeros(shape), np.zeros(shape), data_range=1.0)


def test_other_files_are_refused(folder: Path) -> None:
    path = folder / WEIGHTS[LPIPS[1]].file
    torch.save({"lin0.model.1.weight": torch.zeros(1, 63, 1, 1)}, path)
    with pytest.raises(LeakpipeError, match=f"{path.name}: SHA-256 begins with .* expected .* 'lpips-alex'"):
        load_lpips()


def test_the_command_says_in_one_sentence_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAKPIPE_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    arguments = ["--images", "x", "--split", "x", "--reconstruction", "x", "--out", str(tmp_path / "s.csv")]
    result = CliRunner().invoke(main, ["score", *arguments, "--scoring", '{"lpips": true}'])
    assert result.exit_code == 1
    file = WEIGHTS[LPIPS[0]].file
    assert [line for line in result.output.splitlines() if file in line] == [result.output.strip()]


def test_missing_weights_are_named_with_where_to_get_them(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEAKPIPE_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("leakpipe.models.weights.find_spec", lambda _: None)
    for name, way in zip(LPIPS, (r"torchvision\.models\.alexnet", "lpips==0.1.4"), strict=True):
        with pytest.raises(LeakpipeError, match=f"scoring.lpips: the weights of '{name}' are not on this.*{way}"):
            load_lpips()
        (tmp_path / WEIGHTS[name].file).write_bytes((folder / WEIGHTS[name].file).read_bytes())
    assert load_lpips()


@pytest.mark.filterwarnings("ignore:.*pretrained:UserWarning", "ignore:Arguments other than:UserWarning")
def test_it_is_the_authors_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their package, whose linear weights are found in it, with random features."""
    theirs = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    features = {f"features.{name.partition('.')[2]}": value for name, value in theirs.net.state_dict().items()}
    publish(tmp_path, "imagenet-alexnet", features, monkeypatch)
    original, image = np.random.default_rng(1).random((2, 3, 64, 48), dtype=np.float32)
    expected = theirs(*(torch.from_numpy(2 * pixels - 1)[None] for pixels in (image, original)))
    assert load_lpips()(image, original, data_range=1.0) == pytest.approx(expected.item(), rel=1e-5)
