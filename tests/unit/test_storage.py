"""Files: whole or not at all, and nothing wrong is read without a sentence about it."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from leakpipe.attacks.files import load_reconstruction, save_reconstruction
from leakpipe.client.local_update import LocalSettings, local_update
from leakpipe.data.files import load_dataset, load_split
from leakpipe.data.priors import load_priors, save_priors
from leakpipe.errors import LeakpipeError
from leakpipe.federation.files import CohortMember, StoredUpdate, load_model, load_update, save_model, save_update
from leakpipe.files.storage import read_arrays, read_json, write_arrays, write_atomically, write_json
from leakpipe.models.catalog import MODELS
from leakpipe.models.state import build_module, initial_state
from leakpipe.params.models import ModelParams
from leakpipe.params.training import AdamWParams, ClippingParams, LossParams, TrainingParams
from tests.conftest import SETTINGS, small_batches, small_state

ARRAYS = {"b": np.arange(6.0).reshape(2, 3), "a": np.array([1, 2], dtype=np.int64)}


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    path = tmp_path / "x.safetensors"
    write_arrays(path, "test/kind", ARRAYS, {"round": 3})
    return path


def test_arrays_survive(stored: Path) -> None:
    arrays, metadata = read_arrays(stored, "test/kind")
    assert metadata == {"round": 3}
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype


def test_same_arrays_same_bytes(tmp_path: Path, stored: Path) -> None:
    again = tmp_path / "y.safetensors"
    write_arrays(again, "test/kind", dict(reversed(ARRAYS.items())), {"round": 3})
    assert again.read_bytes() == stored.read_bytes()
    assert again.with_suffix(".json").read_bytes() == stored.with_suffix(".json").read_bytes()


def refused(path: Path, kind: str = "test/kind") -> str:
    with pytest.raises(LeakpipeError) as caught:
        read_arrays(path, kind)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit_sidecar(path: Path, **changes: object) -> None:
    sidecar = path.with_suffix(".json")
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), **changes}))


def fill_with_another_format(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04 not tensors")
    edit_sidecar(path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-8]), "x.safetensors: is truncated or not the file"),
        (fill_with_another_format, "x.safetensors: is not a safetensors file"),
        (
            lambda path: edit_sidecar(path, kind="other"),
            "x.json: kind: 'other' version 1, expected 'test/kind' version 1",
        ),
        (lambda path: edit_sidecar(path, tensors={}), "x.safetensors: tensors differ from those listed"),
        (lambda path: path.unlink(), "x.safetensors: cannot be read: No such file"),
        (lambda path: path.with_suffix(".json").unlink(), "x.json: cannot be read: No such file"),
    ],
    ids=["truncated", "another format", "another kind", "other tensors", "missing", "sidecar missing"],
)
def test_a_spoilt_file_is_refused(stored: Path, spoil: Callable[[Path], object], said: str) -> None:
    spoil(stored)
    with pytest.raises(LeakpipeError) as caught:
        read_arrays(stored, "test/kind")
    assert str(stored.parent / said) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_values_that_are_not_finite_are_neither_written_nor_read(tmp_path: Path) -> None:
    path = tmp_path / "nan.safetensors"
    with pytest.raises(LeakpipeError, match=r"tensor 'w' holds values that are not finite"):
        write_arrays(path, "test/kind", {"w": np.array([1.0, np.nan])}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("before")

    def fail() -> None:
        with write_atomically(path) as stream:
            stream.write(b"half")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        fail()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".t.json.abc.part").write_text("half")
    (tmp_path / ".other.json.abc.part").write_text("somebody else's")
    write_json(tmp_path / "t.json", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.json.abc.part", "t.json"]


def test_unwritable_places_are_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LeakpipeError, match="cannot be written"):
        write_json(tmp_path / "file" / "x.json", {})


def test_json_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.json").write_text("[]")
    with pytest.raises(LeakpipeError, match="is not JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(LeakpipeError, match="expected a JSON object, got list"):
        read_json(tmp_path / "b.json")


SMALL = ModelParams(name="convnet-bn", widths=(4, 6), strides=(1, 2))


@pytest.fixture
def federation(tmp_path: Path) -> tuple[Path, Path]:
    state = small_state(dtype=torch.float32)
    update = local_update(state, small_batches(2, dtype=torch.float32), SETTINGS)
    model, shared = tmp_path / "global.safetensors", tmp_path / "update.safetensors"
    save_model(model, state, params=SMALL, classes=2, image_size=8)
    save_update(shared, StoredUpdate(update, {"round": 1, "client": "site-9"}, [[0, 1]], [1, 0], SETTINGS))
    return model, shared


def test_models_and_updates_survive(federation: tuple[Path, Path]) -> None:
    model, shared = federation
    state, expected = load_model(model), small_state(dtype=torch.float32)
    torch.testing.assert_close(dict(state.weights), dict(expected.weights), rtol=0, atol=0)
    torch.testing.assert_close(dict(state.statistics), dict(expected.statistics), rtol=0, atol=0)
    stored = load_update(shared, state)
    assert (stored.schedule, stored.labels, stored.settings) == (
        [[0, 1]],
        [1, 0],
        LocalSettings(learning_rate=0.05, batch_norm_momentum=0.1),
    )
    again = local_update(state, small_batches(2, dtype=torch.float32), SETTINGS)
    torch.testing.assert_close(dict(stored.update.weights), dict(again.weights), rtol=0, atol=0)


def test_how_a_client_trained_survives_and_plain_sgd_is_not_said(federation: tuple[Path, Path]) -> None:
    model, shared = federation
    state = load_model(model)
    plain = load_update(shared, state)
    assert "training" not in read_arrays(shared, "leakpipe/update")[1]
    training = TrainingParams(
        optimizer=AdamWParams(kind="adamw", eps=1e-6),
        clipping=ClippingParams(kind="norm", limit=2.0),
        loss=LossParams(class_weights=(1.0, 2.0), reduction="sum"),
        precision="bf16",
    )
    save_update(shared, replace(plain, settings=replace(plain.settings, training=training)))
    assert load_update(shared, state).settings.training == training


def test_what_an_aggregate_holds_besides_survives(federation: tuple[Path, Path]) -> None:
    model, shared = federation
    state = load_model(model)
    alone = load_update(shared, state)
    assert (alone.cohort, "companions" in read_arrays(shared, "leakpipe/update")[1]) == ([], False)
    others = [CohortMember("site-1", [[1, 0], [2]], [0, 1, 1]), CohortMember("site-2", [[0]], [1])]
    save_update(shared, replace(alone, cohort=others))
    assert load_update(shared, state).cohort == others


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"client": "a", "labels": [0]}, r"KeyError\('schedule'\)"),
        ({"client": "a", "labels": [0, 1], "schedule": [[0]]}, r"companions: 'a': schedule \[\[0\]\] of 2 labels, exp"),
        ({"client": "a", "labels": [], "schedule": []}, r"companions: 'a': schedule \[\] of 0 labels, expected one or"),
        ({"client": "a", "labels": ["x"], "schedule": [[0]]}, "'x', expected a whole number from 0"),
    ],
)
def test_companions_that_cannot_be(federation: tuple[Path, Path], entry: dict[str, object], said: str) -> None:
    model, shared = federation
    arrays, metadata = read_arrays(shared, "leakpipe/update")
    write_arrays(shared, "leakpipe/update", arrays, {**metadata, "companions": [entry]})
    with pytest.raises(LeakpipeError, match=f"metadata does not describe an update: .*{said}"):
        load_update(shared, load_model(model))


@pytest.mark.parametrize(
    ("name", "normalization"), [*((name, "batch") for name in MODELS), ("convnet-bn", "group"), ("resnet50", "group")]
)
def test_every_registered_model_survives(name: str, normalization: str, tmp_path: Path) -> None:
    params = ModelParams(name=name, normalization=normalization, weights="random", pretraining={"epochs": 3})
    state = initial_state(build_module(params, classes=3, image_size=32), seed=1)
    save_model(tmp_path / "global.safetensors", state, params=params, classes=3, image_size=32)
    read = load_model(tmp_path / "global.safetensors")
    torch.testing.assert_close(dict(read.weights), dict(state.weights), rtol=0, atol=0)
    torch.testing.assert_close(dict(read.statistics), dict(state.statistics), rtol=0, atol=0)


def rewrite(path: Path, change) -> None:
    arrays, metadata = read_arrays(path, "leakpipe/update")
    change(arrays)
    write_arrays(path, "leakpipe/update", arrays, metadata)


BIAS = "weights/head.bias"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: a.pop(BIAS), f"tensor '{BIAS}' is missing; the model has it with shape (2,)"),
        (
            lambda a: a.update({BIAS: np.zeros(3, np.float32)}),
            "is float32 of shape (3,), expected floats of shape (2,)",
        ),
        (lambda a: a.update({BIAS: np.zeros(2, np.int64)}), "is int64 of shape (2,), expected floats"),
        (lambda a: a.update({"weights/tail": np.zeros(2, np.float32)}), "'weights/tail' is not one of the model's"),
    ],
    ids=["missing", "shape", "integers", "unknown"],
)
def test_an_update_that_does_not_fit_its_model(federation: tuple[Path, Path], change, said: str) -> None:
    model, shared = federation
    rewrite(shared, change)
    with pytest.raises(LeakpipeError) as caught:
        load_update(shared, load_model(model))
    assert said in str(caught.value)


@pytest.mark.parametrize("which", [0, 1], ids=["model", "update"])
def test_metadata_that_lacks_a_field(federation: tuple[Path, Path], which: int) -> None:
    sidecar = federation[which].with_suffix(".json")
    content = json.loads(sidecar.read_text())
    content["metadata"].pop(("classes", "schedule")[which])
    sidecar.write_text(json.dumps(content))
    with pytest.raises(LeakpipeError, match="metadata does not describe"):
        load_update(federation[1], load_model(federation[0]))


@pytest.mark.parametrize(
    "cell",
    [{"round": "1/../../elsewhere"}, {"round": -1}, {"seed": [1]}, {"seed": True}, {"client": 3}, {"client": None}, []],
)
def test_a_cell_holds_names_and_whole_numbers(federation: tuple[Path, Path], cell: object, tmp_path: Path) -> None:
    """The round is part of a checkpoint's path."""
    images = np.zeros((1, 1, 8, 8), np.float32)
    rebuilt = tmp_path / "r.safetensors"
    save_reconstruction(rebuilt, images, labels=np.array([1]), prior=images, cell={"seed": 1}, iterations=9)
    for path in (federation[1], rebuilt):
        sidecar = path.with_suffix(".json")
        content = json.loads(sidecar.read_text())
        content["metadata"]["cell"] = cell
        sidecar.write_text(json.dumps(content))
    with pytest.raises(LeakpipeError, match="metadata does not describe an update: TypeError"):
        load_update(federation[1], load_model(federation[0]))
    with pytest.raises(LeakpipeError, match="metadata does not describe a reconstruction: TypeError"):
        load_reconstruction(rebuilt)


def test_reconstructions_survive(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((2, 1, 8, 8)).astype(np.float32)
    path, labels, cell = tmp_path / "r.safetensors", np.array([1, 0]), {"seed": 1}
    save_reconstruction(path, images, labels=labels, prior=images / 2, cell=cell, iterations=9)
    found = load_reconstruction(path)
    np.testing.assert_array_equal(found.images, images)
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_array_equal(found.prior, images / 2)
    assert (found.cell, found.iterations) == (cell, 9)


def test_data_files_that_lack_something(tmp_path: Path) -> None:
    path = tmp_path / "images.safetensors"
    write_arrays(path, "leakpipe/dataset", {"labels": np.zeros(2)}, {"classes": ["a"]})
    with pytest.raises(LeakpipeError, match="tensor 'images' with 4 or 5 dimensions is missing"):
        load_dataset(path)
    write_arrays(path, "leakpipe/dataset", {"labels": np.zeros(2)}, {})
    with pytest.raises(LeakpipeError, match=r"metadata.classes: None, expected a list"):
        load_dataset(path)
    (tmp_path / "split.json").write_text('{"clients": {}, "validation": [], "test": [], "public": []}')
    with pytest.raises(LeakpipeError, match="seed: None, expected a whole number"):
        load_split(tmp_path / "split.json")
    save_priors(tmp_path / "p.safetensors", {"all": np.zeros((1, 8, 8), np.float32)}, seed=4)
    known = load_priors(tmp_path / "p.safetensors")
    assert (known.seed, known.public) == (4, None)
    levels = {"all": np.zeros((1, 8, 8), np.float32), "public": np.zeros((2, 1, 8, 8), np.float32)}
    write_arrays(tmp_path / "p.safetensors", "leakpipe/prior", levels, {"seed": 4})
    with pytest.raises(LeakpipeError, match="tensor 'public' is float32, expected uint8"):
        load_priors(tmp_path / "p.safetensors")


def test_public_images_stand_beside_their_mean(tmp_path: Path) -> None:
    path, mean = tmp_path / "p.safetensors", np.full((1, 2, 2), 0.5, np.float32)
    held = np.linspace(0, 1, 4 * 600, dtype=np.float32).reshape(600, 1, 2, 2)
    save_priors(path, {"all": mean}, seed=4, public=held[:20])
    found = load_priors(path).public
    assert found is not None
    assert (found.dtype, found.shape) == (np.float32, (20, 1, 2, 2))
    np.testing.assert_allclose(found, held[:20], atol=0.5 / 255 + 1e-6)
    assert set(load_priors(path).images) == {"all"}
    save_priors(path, {"all": mean}, seed=4, public=held)
    found = load_priors(path).public
    assert found is not None
    assert len(found) == 512  # no more, from the first to the last
    np.testing.assert_allclose(found[[0, -1]], held[[0, -1]], atol=0.5 / 255 + 1e-6)
    assert len(np.unique(found.mean((1, 2, 3)))) > 250


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"seed": 1, "seed": 2}', "'seed' is there twice"),
        ('{"seed": NaN}', "NaN is not a number of JSON"),
        ('{"a":' + "[" * 100_000, "maximum recursion depth exceeded"),
        ('{"a":' + "[" * 150 + "]" * 150 + "}", "nested more than 100 deep"),
        ('{"a": ' + "9" * 400 + "}", "99 is larger than floating-point numbers can be"),
        ('{"a": ["\\ud83d\\ude00", "\\ud83d"]}', "surrogates not allowed"),
        ("\ufeff{}", "Unexpected UTF-8 BOM"),
        ("[]", "expected a JSON object, got list"),
    ],
)
def test_json_that_says_two_things_or_too_much_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(LeakpipeError, match=said):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize("name", ["pipe", "folder", "a" * 300, "a\0"])
def test_no_pipe_is_waited_for(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with pytest.raises(LeakpipeError, match="cannot be read: "):
        read_json(tmp_path / name)


@pytest.mark.parametrize("metadata", [None, [], "x", 3])
def test_metadata_must_be_an_object(metadata: object, stored: Path) -> None:
    edit_sidecar(stored, metadata=metadata)
    assert refused(stored).endswith(f"x.json: metadata: {metadata!r}, expected an object")


def test_complex_numbers_must_be_finite(tmp_path: Path) -> None:
    with pytest.raises(LeakpipeError, match="not finite"):
        write_arrays(tmp_path / "x.safetensors", "test/kind", {"a": np.array([1j * np.inf])}, {})
