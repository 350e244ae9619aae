"""MedMNIST's files: which is read, what it holds, and what is refused."""

import io
import random
import zipfile
from pathlib import Path
from typing import Any

import medmnist
import numpy as np
import pytest

from leakpipe.data import medmnist_sets
from leakpipe.data.datasets import DATASETS
from leakpipe.data.image_files import fit_square
from leakpipe.data.images import Contents
from leakpipe.data.medmnist_sets import read_info
from leakpipe.errors import LeakpipeError
from leakpipe.params.data import ImagesParams
from tests.fuzz.changes import refused

MEDMNIST = DATASETS["medmnist"]
COUNTS = {"train": 6, "val": 2, "test": 3}


def arrays(size: int = 28, *, channels: int = 1, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = (size, size) if channels == 1 else (size, size, channels)
    made: dict[str, np.ndarray] = {}
    for split, count in COUNTS.items():
        made[f"{split}_images"] = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
        made[f"{split}_labels"] = (np.arange(count) % 2)[:, None].astype(np.uint8)
    return made


def of(root: Path, **changes: Any) -> ImagesParams:
    known = {"dataset": "medmnist", "image_size": 28, "subset": "pneumoniamnist", "root": str(root)}
    return ImagesParams.model_validate({**known, **changes})


def said(params: ImagesParams) -> str:
    with pytest.raises(LeakpipeError) as raised:
        MEDMNIST.load(params)
    return str(raised.value)


def test_the_table_is_the_packages() -> None:
    assert read_info() == medmnist.INFO


def test_parts_are_joined_in_order(tmp_path: Path) -> None:
    made = arrays()
    np.savez_compressed(tmp_path / "pneumoniamnist.npz", **made)
    loaded = MEDMNIST.load(of(tmp_path))
    expected = np.concatenate([made[f"{split}_images"] for split in COUNTS])[:, None].astype(np.float32) / np.float32(
        255
    )
    np.testing.assert_array_equal(loaded.images, expected)
    assert loaded.labels.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert loaded.labels.dtype == np.int64
    assert loaded.classes == ("normal", "pneumonia")
    assert loaded.names == ()


def test_a_limit_reads_the_chosen_images_of_all_parts(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "pneumoniamnist.npz", **arrays())
    whole, some = MEDMNIST.load(of(tmp_path)), MEDMNIST.load(of(tmp_path, images=6))
    assert np.bincount(some.labels).tolist() == [3, 3]
    places = [int(np.flatnonzero((whole.images == image).all(axis=(1, 2, 3)))[0]) for image in some.images]
    assert places == sorted(places)
    assert whole.labels[places].tolist() == some.labels.tolist()


def test_the_smallest_file_that_need_not_be_enlarged_is_read(tmp_path: Path) -> None:
    for size in (64, 128):
        np.savez(tmp_path / f"pneumoniamnist_{size}.npz", **arrays(size, seed=size))
    first = arrays(64, seed=64)["train_images"][0] / np.float32(255)
    np.testing.assert_array_equal(MEDMNIST.load(of(tmp_path, image_size=32)).images[0], fit_square(first, 32))
    asked = MEDMNIST.load(of(tmp_path, image_size=32, stored_size=128))
    other = arrays(128, seed=128)["train_images"][0] / np.float32(255)
    np.testing.assert_array_equal(asked.images[0], fit_square(other, 32))
    assert str(tmp_path / "pneumoniamnist_224.npz") in said(of(tmp_path, image_size=512))


def test_colour_sets_keep_their_channels(tmp_path: Path) -> None:
    made = arrays(channels=3)
    np.savez(tmp_path / "bloodmnist.npz", **made)
    loaded = MEDMNIST.load(of(tmp_path, subset="bloodmnist"))
    assert loaded.images.shape == (11, 3, 28, 28)
    np.testing.assert_allclose(loaded.images[0], made["train_images"][0].transpose(2, 0, 1) / 255, atol=1e-7)


def test_it_can_be_planned_without_its_file(tmp_path: Path) -> None:
    assert MEDMNIST.contents(of(tmp_path)) == Contents(("normal", "pneumonia"), 4708 + 524 + 624, 1)
    blood = MEDMNIST.contents(of(tmp_path, subset="bloodmnist", images=50))
    assert blood is not None
    assert (blood.images, blood.channels, len(blood.classes)) == (50, 3, 8)
    message = said(of(tmp_path, image_size=200))
    assert message.startswith(f"{tmp_path / 'pneumoniamnist_224.npz'}: ")
    assert "`leakpipe fetch medmnist pneumoniamnist --size 224`" in message


def test_a_set_that_is_none_of_medmnists_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        LeakpipeError, match=r"^data\.subset: 'mnist' is not a set of MedMNIST, expected one of pathmnist"
    ):
        MEDMNIST.contents(of(tmp_path, subset="mnist"))


def test_volumes_are_read_and_shrunk_by_means(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    made = arrays()
    for split, count in COUNTS.items():
        made[f"{split}_images"] = rng.integers(0, 256, (count, 64, 64, 64), dtype=np.uint8)
    np.savez(tmp_path / "nodulemnist3d_64.npz", **made)
    params = of(tmp_path, subset="nodulemnist3d", image_size=32)
    loaded, contents = MEDMNIST.load(params), MEDMNIST.contents(params)
    assert contents is not None
    assert contents.axes == 3
    means = made["train_images"][0].reshape(32, 2, 32, 2, 32, 2).mean(axis=(1, 3, 5)) / 255
    np.testing.assert_allclose(loaded.images[0, 0], means, atol=1e-6)
    assert "stored_size: 128, expected 28 or 64" in said(of(tmp_path, subset="nodulemnist3d", stored_size=128))


def test_without_the_package_it_can_be_planned_and_then_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(medmnist_sets, "find_spec", lambda _name: None)
    read_info.cache_clear()
    try:
        assert MEDMNIST.contents(of(tmp_path)) is None
        assert said(of(tmp_path)).endswith("pip install 'leakpipe[medmnist]'")
    finally:
        read_info.cache_clear()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val_labels": np.array([[0], [2]], np.uint8)}, "label 2 is out of range, expected 0 to 1"),
        ({"val_labels": np.array([[0, 1], [1, 0]], np.uint8)}, "expected whole numbers (N, 1)"),
        ({"val_labels": np.array([[0]], object)}, "Object arrays cannot be loaded when allow_pickle=False"),
        ({"val_images": np.zeros((2, 28, 28), np.float32)}, "val_images has shape (2, 28, 28) and type float32"),
        ({"val_images": np.zeros((2, 64, 64), np.uint8)}, "val_images has shape (2, 64, 64) and type uint8"),
        ({"test_images": np.zeros((1, 28, 28), np.uint8)}, "it has more labels than images"),
    ],
)
def test_contents_that_are_wrong_are_named(changes: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    path = tmp_path / "pneumoniamnist.npz"
    np.savez(path, **{**arrays(), **changes})
    assert said(of(tmp_path)).startswith(f"{path}: ")
    assert message in said(of(tmp_path))


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pneumoniamnist.npz"
    np.savez(path, **arrays())
    path.write_bytes(path.read_bytes()[:5000])
    assert said(of(tmp_path)).startswith(f"{path}: is damaged")


@pytest.mark.parametrize("compressed", [False, True])
def test_a_damaged_file_is_named_or_has_its_values(compressed: bool, tmp_path: Path) -> None:
    path, made, draw = tmp_path / "pneumoniamnist.npz", arrays(), random.Random(0)
    (np.savez_compressed if compressed else np.savez)(path, **made)
    content, whole, count = path.read_bytes(), MEDMNIST.load(of(tmp_path)).images, 0
    for _ in range(200):
        spoilt = bytearray(content)
        spoilt[draw.randrange(len(spoilt))] ^= 1 << draw.randrange(8)
        path.write_bytes(spoilt)
        found = refused(lambda: MEDMNIST.load(of(tmp_path)))
        if isinstance(found, LeakpipeError):
            assert str(found).startswith(f"{path}: ")
            count += 1
        else:
            np.testing.assert_array_equal(found.images, whole)
    assert count > 100


def test_a_header_that_promises_more_than_there_is_costs_no_memory(tmp_path: Path) -> None:
    header = io.BytesIO()
    shape = (10**9, 28, 28)
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    path = tmp_path / "pneumoniamnist.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays().items():
            stream = io.BytesIO()
            np.save(stream, array)
            archive.writestr(f"{name}.npy", header.getvalue() if name == "train_images" else stream.getvalue())
    assert "train_images ends after 0 of 1000000000 images" in said(of(tmp_path))
