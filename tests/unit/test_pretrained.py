"""Weights that a federation starts from: torchvision's, AugNet's, files of one's own; and what is wrong with others."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from leakpipe.errors import LeakpipeError
from leakpipe.federation.files import save_model
from leakpipe.models.catalog import MODELS, require_model_weights
from leakpipe.models.choices import LAYER_NORMALIZED
from leakpipe.models.pretrained import pretrained_state, read_published
from leakpipe.models.state import ModelState, build_module, initial_state
from leakpipe.models.weights import WEIGHTS, find_weights, require_weights
from leakpipe.params.models import ModelParams
from tests.conftest import small_state
from tests.unit.published import publish

SMALL = ModelParams(name="convnet-bn", widths=(4, 6), strides=(1, 2))
IMAGENET = [name for name in MODELS if "imagenet" in MODELS[name].published]


def tensors_of(name: str, *, classes: int) -> dict[str, Tensor]:
    """torchvision's state of that network, not one value as an untrained one has it."""
    with torch.device("meta"):
        state = getattr(torchvision.models, name)(num_classes=classes).state_dict()
    generator = torch.Generator().manual_seed(3)
    return {
        key: torch.rand(value.shape, generator=generator) if value.is_floating_point() else torch.tensor(7)
        for key, value in state.items()
    }


def start(params: ModelParams, weights: str, *, seed: int = 1) -> ModelState:
    return pretrained_state(params, weights, build_module(params, classes=2, image_size=8), seed=seed)


def check(state: ModelState, expected: Mapping[str, Tensor], *, head: str) -> None:
    """The state is what was published, but for a head as `initial_state` draws it."""
    drawn = initial_state(state.module, seed=1)
    found = {**state.weights, **state.statistics}
    assert len(found) == sum(value.is_floating_point() for value in expected.values())
    for name, value in found.items():
        ours = name.removeprefix("network.")
        wanted = drawn.weights[name] if ours.startswith(f"{head}.") else expected[ours]
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("name", [name for name in IMAGENET if name != "vgg11_bn"])  # half a gigabyte
def test_imagenet_weights_are_torchvisions(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = tensors_of(name, classes=1000)
    old = {re.sub(r"(denselayer\d+\.[a-z]+)([12])\.", r"\1.\2.", key): value for key, value in tensors.items()}
    assert (old.keys() != tensors.keys()) == (name == "densenet121")  # whose published file has old names
    publish(tmp_path, f"imagenet-{name}", old, monkeypatch)
    check(start(ModelParams(name=name), "imagenet"), tensors, head="classifier" if name == "densenet121" else "fc")


def test_augnets_weights_fit_a_resnet50(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = tensors_of("resnet50", classes=768)
    publish(tmp_path, "imgsim-resnet50", {f"module.pre.{key}": value for key, value in tensors.items()}, monkeypatch)
    check(start(ModelParams(name="resnet50"), "augnet"), tensors, head="fc")


@pytest.mark.parametrize("name", [*IMAGENET, "alexnet"])
def test_published_files_are_those_that_torchvision_fetches(name: str) -> None:
    published = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
    weights = WEIGHTS[f"imagenet-{name}"]
    assert published.url.rpartition("/")[2] == weights.file
    assert weights.file.endswith(f"-{weights.sha256}.pth")
    megabytes = int(re.findall(r"\((\d+) MB\)", weights.fix)[0])
    assert megabytes == pytest.approx(published.meta["_file_size"], abs=0.51)


def test_missing_weights_are_one_sentence_with_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAKPIPE_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("leakpipe.models.weights.find_spec", lambda _name: None)
    missing = r"^{}: the weights of '{}' are not on this machine; .*{}.* the file as {}[^\n]*$"
    embedders = "identifiability.embedders"
    for name, fix in (("imagenet-resnet50", "torchvision.models.resnet50"), ("imgsim-resnet50", "pip install")):
        with pytest.raises(LeakpipeError, match=missing.format(embedders, name, fix, WEIGHTS[name].file)):
            require_weights(["pixels", name], field=embedders)
    for start in ({"weights": "imagenet"}, {"weights": "public", "pretraining": {"start": "imagenet"}}):
        said = missing.format("model.weights", "imagenet-resnet18", "torchvision", "resnet18-f37072fd.pth")
        with pytest.raises(LeakpipeError, match=said[:-1] + "set model.weights to random"):
            require_model_weights(ModelParams(name="resnet18", **start))
    for weights in ("random", "public", "mine.pth"):
        require_model_weights(ModelParams(name="resnet18", weights=weights))
    (tmp_path / "resnet50-0676ba61.pth").touch()
    require_weights(["imagenet-resnet50", "pixels", "pixel-correlation", "global-model"], field=embedders)


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
    assert find_weights("imagenet-resnet50", field="f") == cached
    assert find_weights("imgsim-resnet50", field="f") == package / "model.pth"


def test_other_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "imgsim-resnet50.pth").write_bytes(b"another file")
    with pytest.raises(LeakpipeError, match=r"imgsim-resnet50.pth: SHA-256 begins with .*, expected c2cb3cac"):
        read_published("imgsim-resnet50", tmp_path / "imgsim-resnet50.pth")


def own(*, classes: int = 2, seed: int = 5) -> dict[str, Tensor]:
    """A small network's tensors, under the names that torch gives them."""
    state = initial_state(build_module(SMALL, classes=classes, image_size=8), seed=seed)
    statistics = {name: value + 0.5 for name, value in state.statistics.items()}
    return {**state.weights, **statistics}


def write(path: Path, tensors: dict[str, Tensor]) -> str:
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)
    return str(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("classes", [2, 3])
def test_a_file_of_ones_own(tmp_path: Path, suffix: str, classes: int) -> None:
    tensors = own(classes=classes)
    state = start(SMALL, write(tmp_path / f"mine{suffix}", tensors))
    drawn = initial_state(state.module, seed=1)
    for name, value in {**state.weights, **state.statistics}.items():
        keeps = classes == 2 or not name.startswith("head.")
        assert torch.equal(value, tensors[name] if keeps else drawn.weights[name]), name


@pytest.mark.parametrize("normalization", ["batch", "group"])
@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("vgg11_bn", *LAYER_NORMALIZED)])
def test_every_model_reads_what_torch_wrote_of_it(name: str, normalization: str, tmp_path: Path) -> None:
    params = ModelParams(name=name, normalization=normalization)
    module = build_module(params, classes=2, image_size=32)
    module.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(2)
    for tensor in module.state_dict().values():
        tensor.copy_(torch.rand(tensor.shape, generator=generator) if tensor.is_floating_point() else tensor)
    torch.save(module.state_dict(), tmp_path / "mine.pth")
    state = pretrained_state(params, str(tmp_path / "mine.pth"), module, seed=1)
    for key, value in {**state.weights, **state.statistics}.items():
        assert torch.equal(value, module.state_dict()[key]), key
    other = ModelParams(name=name, normalization="group" if normalization == "batch" else "batch")
    said = "is not one of the model's" if normalization == "batch" else "is missing; the model has it"
    with pytest.raises(LeakpipeError, match=said):
        pretrained_state(other, str(tmp_path / "mine.pth"), build_module(other, classes=2, image_size=32), seed=1)


def test_wrapped_nested_and_headless_tensors_and_global_models_are_found(tmp_path: Path) -> None:
    wrapped = {f"module.{name}": value for name, value in own().items()}
    for number, content in enumerate([wrapped, {"epoch": 3, "state_dict": wrapped}, {"model": wrapped}]):
        torch.save(content, tmp_path / f"{number}.pth")
        assert torch.equal(start(SMALL, str(tmp_path / f"{number}.pth")).weights["head.weight"], own()["head.weight"])
    without_head = {name: value for name, value in own().items() if not name.startswith("head.")}
    state = start(SMALL, write(tmp_path / "body.pth", without_head))
    assert torch.equal(state.weights["head.weight"], initial_state(state.module, seed=1).weights["head.weight"])
    path, other = tmp_path / "global.safetensors", small_state(seed=4, dtype=torch.float32)
    save_model(path, other, params=SMALL, classes=2, image_size=8)
    found = start(SMALL, str(path))
    torch.testing.assert_close({**found.weights, **found.statistics}, {**other.weights, **other.statistics})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("features.0.weight"), "'features.0.weight' is missing"),
        (lambda t: t.pop("features.1.running_var"), "'features.1.running_var' is missing"),
        (lambda t: t.update({"tail": torch.zeros(1)}), "'tail' is not one of the model's"),
        (lambda t: t.update({"features.1.bias": torch.zeros(5)}), r"'features.1.bias' .* \(5,\), expected \(4,\)"),
        (lambda t: t["features.1.bias"].fill_(torch.nan), "'features.1.bias' .* not finite"),
        (lambda t: t.update({"features.1.bias": torch.ones(4).double() * 1e200}), "'features.1.bias' .* not finite"),
        (lambda t: t.update({"features.1.bias": torch.ones(4, dtype=torch.int8)}), "'features.1.bias' holds int8"),
        (lambda t: t.update({"features.1.bias": torch.ones(4, dtype=torch.bool)}), "'features.1.bias' holds bool"),
        (lambda t: t.update({"features.1.bias": torch.ones(4) * 1j}), "'features.1.bias' holds complex64"),
        (lambda t: t.update({"module.features.1.bias": torch.ones(4)}), "'module.features.1.bias' is not one of"),
    ],
    ids=[
        *("missing", "no statistics", "unknown", "shape", "not finite", "too large", "int8", "bool"),
        *("complex", "twice"),
    ],
)
def test_tensors_of_another_model(tmp_path: Path, change: Callable[[dict[str, Tensor]], object], said: str) -> None:
    tensors = own()
    change(tensors)
    path = write(tmp_path / "other.pth", tensors)
    with pytest.raises(LeakpipeError, match=rf"^model\.weights: {path}: tensor {said}[^\n]*$"):
        start(SMALL, path)


class RunsCode:
    """Touches a file when it is unpickled."""

    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.touched,)


def test_files_that_are_no_tensors(tmp_path: Path) -> None:
    with pytest.raises(LeakpipeError, match=r"absent\.pth: cannot be read: No such file"):
        start(SMALL, str(tmp_path / "absent.pth"))
    for name in ("bad.pth", "bad.safetensors"):
        (tmp_path / name).write_bytes(b"not tensors")
        with pytest.raises(LeakpipeError, match=rf"{name}: (holds more than tensors|is damaged)[^\n\x1b]*$"):
            start(SMALL, str(tmp_path / name))
    code = {"head.weight": RunsCode(tmp_path / "touched")}
    for content, said in (
        [[torch.zeros(1)], "expected tensors"],
        [{}, "expected tensors"],
        [code, "holds more than tensors and plain containers"],
    ):
        torch.save(content, tmp_path / "list.pth")
        with pytest.raises(LeakpipeError, match=rf"list\.pth: {said}"):
            start(SMALL, str(tmp_path / "list.pth"))
    assert not (tmp_path / "touched").exists()
