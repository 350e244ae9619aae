"""State files of others, and our own tensors with their sidecars."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from leakpipe.attacks.files import load_reconstruction, save_reconstruction
from leakpipe.client.local_update import local_update
from leakpipe.data.files import load_dataset, save_dataset
from leakpipe.data.images import LabeledImages
from leakpipe.data.priors import load_priors, save_priors
from leakpipe.errors import LeakpipeError
from leakpipe.federation.files import StoredUpdate, load_model, load_update, save_model, save_update
from leakpipe.files.storage import read_arrays, write_arrays
from leakpipe.models.pretrained import read_tensors, take_tensors
from leakpipe.params.models import ModelParams
from tests.conftest import SETTINGS, small_batches, small_state
from tests.fuzz.changes import VALUES, damaged, edited, refused, same

SMALL = ModelParams(name="convnet-bn", widths=(4, 6), strides=(1, 2))
STATE = small_state(dtype=torch.float32)
TENSORS = {**STATE.weights, **STATE.statistics}
HEAD = ("head.weight", "head.bias")  # drawn anew where the file has another one
KINDS = [
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn),
    *(torch.int8, torch.uint8, torch.int64, torch.bool, torch.complex64),
]
STRANGE: list[dict[Any, Any]] = [{}, {}, {3: torch.ones(1)}, {"lr": 0.1}, {"sparse": torch.eye(2).to_sparse()}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tensors")


@given(data=st.data())
def test_state_files(folder: Path, data: st.DataObject) -> None:
    """Files that are whole: every tensor is taken as the number that it is, or the file is refused."""
    tensors: dict[Any, Any] = dict(TENSORS)
    for _ in range(data.draw(st.integers(0, 3))):
        name = data.draw(st.sampled_from(sorted(TENSORS)))
        action = data.draw(st.sampled_from(["kind", "value", "shape", "drop", "rename", "twice"]))
        if action == "drop":
            tensors.pop(name, None)
        elif action == "rename" and name in tensors:
            tensors[data.draw(st.sampled_from(["module.", "x.", "network.module."])) + name] = tensors.pop(name)
        elif action == "twice":
            tensors["module." + name] = TENSORS[name] + 1
        elif action == "kind":
            tensors[name] = TENSORS[name].to(data.draw(st.sampled_from(KINDS)))
        elif action == "shape":
            tensors[name] = TENSORS[name][None]
        elif action == "value":
            value = data.draw(st.sampled_from([torch.nan, torch.inf, 1e300, -0.0, 1e-300]))
            tensors[name] = torch.full(TENSORS[name].shape, value, dtype=torch.float64)
    if data.draw(st.booleans()):
        path = folder / "x.safetensors"
        save_file({name: value.clone().contiguous() for name, value in tensors.items()}, path)
    else:
        path = folder / "x.pth"
        content = {**tensors, **data.draw(st.sampled_from(STRANGE))}
        nested = [content, {"state_dict": content}, {"model": content, "epoch": 3}]
        torch.save(data.draw(st.sampled_from(nested)), path)
    drawn = small_state(seed=9, dtype=torch.float32)
    found = refused(lambda: take_tensors(drawn, read_tensors(path, field="model.weights"), source="x"))
    if isinstance(found, LeakpipeError):
        return
    for name, value in {**found.weights, **found.statistics}.items():
        written = [tensor for full, tensor in tensors.items() if str(full).rpartition("module.")[2] == name]
        if name in HEAD and not (len(written) == 1 and written[0].shape == value.shape):
            continue
        if name in HEAD and torch.equal(value, {**drawn.weights}[name]):
            continue
        assert len(written) == 1
        assert written[0].is_floating_point()
        assert torch.equal(value, written[0].to(torch.float32))


@given(data=st.data())
def test_damaged_state_files(folder: Path, data: st.DataObject) -> None:
    path = folder / data.draw(st.sampled_from(["y.pth", "y.safetensors"]))
    if path.suffix == ".pth":
        torch.save(TENSORS, path)
    else:
        save_file(TENSORS, path)
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    found = refused(lambda: take_tensors(STATE, read_tensors(path, field="model.weights"), source="x"))
    if not isinstance(found, LeakpipeError):
        assert all(value.isfinite().all() for value in found.weights.values())


def write_all(folder: Path) -> dict[str, Any]:
    """A file of each kind that a sidecar describes; how each is read, and what of the sidecar that must give."""
    rng = np.random.default_rng(0)
    images = rng.random((2, 1, 8, 8)).astype(np.float32)
    save_model(folder / "model.safetensors", STATE, params=SMALL, classes=2, image_size=8)
    update = local_update(STATE, small_batches(2, dtype=torch.float32), SETTINGS)
    save_update(folder / "update.safetensors", StoredUpdate(update, {"round": 1}, [[0, 1]], [1, 0], SETTINGS))
    named = LabeledImages(images, np.array([0, 1]), ("a", "b"), names=("a/1", "b/2"))
    save_dataset(folder / "dataset.safetensors", named)
    save_priors(folder / "prior.safetensors", {"all": images[0]}, seed=4)
    save_reconstruction(
        folder / "rebuilt.safetensors", images, labels=np.array([1, 0]), prior=images, cell={"seed": 1}, iterations=9
    )

    def read_update(path: Path) -> dict[str, Any]:
        stored = load_update(path, STATE)
        return {
            "cell": stored.cell, "steps": stored.update.steps, "schedule": stored.schedule, "labels": stored.labels,
            "learning_rate": stored.settings.learning_rate, "batch_norm_momentum": stored.settings.batch_norm_momentum,
        }  # fmt: skip

    def read_dataset(path: Path) -> dict[str, Any]:
        stored = load_dataset(path)
        return {"classes": stored.classes, **({"names": stored.names} if stored.names else {})}

    def read_rebuilt(path: Path) -> dict[str, Any]:
        stored = load_reconstruction(path)
        return {"cell": stored.cell, "iterations": stored.iterations}

    def read_model(path: Path) -> dict[str, Any]:
        torch.testing.assert_close(load_model(path).weights, STATE.weights, rtol=0, atol=0)
        return {}

    readers = {"update": read_update, "dataset": read_dataset, "rebuilt": read_rebuilt, "model": read_model}
    return {**readers, "prior": lambda path: {"seed": load_priors(path).seed}}


@pytest.fixture(scope="module")
def readers(folder: Path) -> dict[str, Any]:
    return write_all(folder)


@given(data=st.data())
def test_sidecars(folder: Path, readers: dict[str, Any], data: st.DataObject) -> None:
    """A changed sidecar is read as what it says, or it is refused."""
    name = data.draw(st.sampled_from(sorted(readers)))
    tensors, sidecar = folder / f"{name}.safetensors", folder / f"{name}.json"
    before = tensors.read_bytes(), sidecar.read_bytes()
    try:
        if data.draw(st.booleans()):
            content = json.loads(before[1])
            content["metadata"] = data.draw(edited(content["metadata"]))
            sidecar.write_text(json.dumps(content if data.draw(st.booleans()) else data.draw(edited(content))))
        elif data.draw(st.booleans()):
            sidecar.write_bytes(data.draw(damaged(before[1])))
        else:
            spoilt = data.draw(damaged(before[0]))
            tensors.write_bytes(spoilt)
            assert isinstance(refused(lambda: readers[name](tensors)), LeakpipeError) or spoilt == before[0]
        found = refused(lambda: readers[name](tensors))
        if not isinstance(found, LeakpipeError):
            metadata = json.loads(sidecar.read_bytes())["metadata"]
            for field, value in found.items():
                assert same(metadata[field], value), f"{name}.{field}: {metadata[field]!r} became {value!r}"
    finally:
        tensors.write_bytes(before[0])
        sidecar.write_bytes(before[1])


@given(data=st.data())
def test_nothing_is_half_written(folder: Path, data: st.DataObject) -> None:
    path = folder / "half.safetensors"
    write_arrays(path, "test/kind", {"x": np.arange(3.0)}, {"n": 1})
    before = path.read_bytes(), path.with_suffix(".json").read_bytes()
    array = np.full(3, data.draw(st.floats()))
    metadata = {"n": data.draw(VALUES | st.just({1, 2}))}
    try:
        write_arrays(path, "test/kind", {"x": array}, metadata)
    except (LeakpipeError, ValueError, TypeError):
        assert (path.read_bytes(), path.with_suffix(".json").read_bytes()) == before
    else:
        arrays, kept = read_arrays(path, "test/kind")
        np.testing.assert_array_equal(arrays["x"], array)
        assert same(kept, metadata)
    assert not list(folder.glob("*.part"))
    assert not list(folder.glob(".*.part"))
