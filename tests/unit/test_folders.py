"""Data sets of image files in class folders: what is listed, chosen, loaded and refused."""

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest

from leakpipe.data.datasets import DATASETS
from leakpipe.data.files import DATASET, load_dataset, load_split, save_dataset
from leakpipe.data.folders import choose_images, list_images
from leakpipe.data.image_files import read_image
from leakpipe.data.images import Contents
from leakpipe.errors import LeakpipeError
from leakpipe.files.storage import write_arrays
from leakpipe.params.data import ImagesParams
from tests.unit.data_files import noise, of_folder, write_folder, write_image
from tests.unit.test_dicom_files import write_dicom

FOLDER, COVID = DATASETS["image-folder"], DATASETS["covid-radiography"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "xrays", {"clear": 3, "opacity": 12})


def test_classes_are_folders_by_name_and_images_by_path(root: Path) -> None:
    write_image(root / "clear" / "deep" / "er" / "a.TIF", noise(16, 16), format="TIFF")
    (root / "clear" / "notes.txt").write_text("")
    (root / "clear" / ".hidden.png").write_text("")
    (root / ".cache").mkdir()
    loaded = FOLDER.load(of_folder(root))
    assert loaded.classes == ("clear", "opacity")
    assert loaded.names[:5] == (
        *(f"clear/clear-{number}.png" for number in (1, 2, 3)), "clear/deep/er/a.TIF", "opacity/opacity-1.png",
    )  # fmt: skip
    assert Counter(loaded.labels.tolist()) == {0: 4, 1: 12}
    assert loaded.images.dtype == np.float32
    assert loaded.labels.dtype == np.int64
    for name, image in zip(loaded.names, loaded.images, strict=True):
        np.testing.assert_array_equal(image, read_image(root / name, size=16, color=False))
    assert FOLDER.contents(of_folder(root)) == Contents(("clear", "opacity"), 16)


def test_classes_can_be_chosen_and_ordered(root: Path) -> None:
    write_folder(root, {"other": 1})
    loaded = FOLDER.load(of_folder(root, classes=["opacity", "clear"], channels="color"))
    assert loaded.classes == ("opacity", "clear")
    assert loaded.labels.tolist() == [0] * 12 + [1] * 3
    assert loaded.images.shape == (15, 3, 16, 16)


def test_names_survive_storage(root: Path, tmp_path: Path) -> None:
    faces = DATASETS["lfw-faces"].load(ImagesParams(dataset="lfw-faces", image_size=16))
    for loaded in (FOLDER.load(of_folder(root)), faces):
        save_dataset(tmp_path / "images.safetensors", loaded)
        assert load_dataset(tmp_path / "images.safetensors").names == loaded.names
    assert '"names"' not in (tmp_path / "images.json").read_text()


@pytest.mark.parametrize("limit", [2, 5, 6, 9, 14])
def test_a_limit_is_balanced_as_far_as_images_last_and_always_the_same(limit: int, root: Path) -> None:
    loaded = FOLDER.load(of_folder(root, images=limit))
    counted = Counter(loaded.labels.tolist())
    assert counted == {0: min(3, (limit + 1) // 2), 1: limit - min(3, (limit + 1) // 2)}
    assert loaded.names == FOLDER.load(of_folder(root, images=limit)).names
    assert list(loaded.names) == sorted(loaded.names)
    contents = FOLDER.contents(of_folder(root, images=limit))
    assert contents is not None
    assert contents.images == limit


def test_the_limit_takes_a_random_choice_not_the_first() -> None:
    chosen = choose_images([0] * 1000, 100)
    assert 350 < np.mean(chosen) < 650
    assert choose_images([0, 1, 0], None) == choose_images([0, 1, 0], 3) == [0, 1, 2]


def test_what_is_kept_comes_before_balance() -> None:
    labels = [0] * 10 + [1] * 10
    assert set(range(4)) < set(choose_images(labels, 6, kept={0, 1, 2, 3}))
    assert Counter(labels[index] for index in choose_images(labels, 8, kept={0, 1, 2, 3})) == {0: 4, 1: 4}
    with pytest.raises(LeakpipeError, match=r"data\.images: 3 is fewer than the 4 images"):
        choose_images(labels, 3, kept={0, 1, 2, 3})


def said(params: ImagesParams) -> str:
    with pytest.raises(LeakpipeError) as raised:
        DATASETS[params.dataset].load(params)
    return str(raised.value)


@pytest.mark.parametrize(
    ("changes", "place", "message"),
    [
        ({}, "empty", "empty: holds no image"),
        ({"classes": ["clear", "cloudy"]}, "cloudy", "folder of class 'cloudy' is missing"),
        ({"classes": ["opacity", "clear"]}, "opacity/opacity-7.png", "is not a PNG, JPEG or TIFF"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, object], place: str, message: str, root: Path) -> None:
    (root / "empty").mkdir()
    (root / "opacity" / "opacity-7.png").write_bytes(b"")
    error = said(of_folder(root, **changes))
    assert error.startswith(f"{root / place}: ")
    assert message in error


def test_one_class_is_no_classification(tmp_path: Path) -> None:
    assert "has 1 class folders" in said(of_folder(write_folder(tmp_path, {"only": 2})))


def test_colour_among_gray_is_named(root: Path) -> None:
    path = write_image(root / "opacity" / "x.png", noise(16, 16, 3))
    assert said(of_folder(root)).startswith(f"{path}: is in colour, expected gray")
    assert FOLDER.load(of_folder(root, channels="color")).images.shape[1] == 3


def test_links_that_leave_the_folder_are_refused(root: Path, tmp_path: Path) -> None:
    secret = write_image(tmp_path / "secret.png", noise(16, 16))
    link = root / "clear" / "link.png"
    link.symlink_to(secret)
    assert said(of_folder(root)).startswith(f"{link}: leads out of the data folder")
    link.unlink()
    link.symlink_to(root / "clear" / "clear-1.png")
    assert len(FOLDER.load(of_folder(root)).names) == 16, "one that stays inside is an image like others"


def test_links_to_folders_are_refused(root: Path, tmp_path: Path) -> None:
    write_folder(tmp_path / "elsewhere", {"x": 1})
    (root / "zzz").symlink_to(tmp_path / "elsewhere")
    assert said(of_folder(root)).startswith(f"{root / 'zzz'}: leads out of the data folder")
    (root / "zzz").unlink()
    (root / "clear" / "more").symlink_to(root / "opacity")
    assert said(of_folder(root)).startswith(f"{root / 'clear' / 'more'}: links to folders are not followed")


def test_the_data_folder_itself_may_be_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    assert len(list_images(tmp_path / "link", ["clear", "opacity"]).names) == 15


def test_covid_radiography_reads_images_not_masks_with_the_papers_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "COVID-19_Radiography_Dataset"
    write_folder(root, {"COVID/images": 2, "COVID/masks": 2, "Normal/images": 3, "Viral Pneumonia/images": 1})
    monkeypatch.setenv("LEAKPIPE_DATA", str(tmp_path))
    params = ImagesParams(dataset="covid-radiography", image_size=16)
    loaded = COVID.load(params)
    assert loaded.classes == ("Normal", "COVID")
    assert loaded.labels.tolist() == [0, 0, 0, 1, 1]
    assert loaded.names[-1] == "COVID/images/COVID-2.png"
    three = params.model_copy(update={"classes": ("Viral Pneumonia", "COVID", "Normal")})
    assert COVID.load(three).labels.tolist() == [0, 1, 1, 2, 2, 2]


def test_covid_radiography_can_be_planned_without_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAKPIPE_DATA", str(tmp_path))
    params = ImagesParams(dataset="covid-radiography", image_size=16)
    assert COVID.contents(params) == Contents(("Normal", "COVID"), 13808)
    assert COVID.contents(params.model_copy(update={"images": 100})) == Contents(("Normal", "COVID"), 100)
    message = said(params)
    assert message.startswith(f"{tmp_path / 'COVID-19_Radiography_Dataset'}: ")
    assert "`leakpipe fetch covid-radiography`" in message
    with pytest.raises(LeakpipeError, match=r"data\.classes: 'Flu' .* known: COVID, Lung_Opacity"):
        COVID.contents(params.model_copy(update={"classes": ("Normal", "Flu")}))


def test_a_missing_folder_is_planned_and_then_named(tmp_path: Path) -> None:
    params = of_folder(tmp_path / "absent")
    assert FOLDER.contents(params) is None
    assert said(params).startswith(f"{tmp_path / 'absent'}: ")


def test_dicom_is_found_by_content_and_the_rest_is_counted(root: Path, tmp_path: Path) -> None:
    for name in ("IM000001", "1.2.840.33", "x.dicom"):
        write_dicom(root / "clear" / name)
    for name in ("clear/notes.txt", "opacity/more.txt", "clear/.DS_Store", "labels.csv"):
        (root / name).write_text("x" * 200)
    os.mkfifo(root / "clear" / "pipe.png")
    loaded = FOLDER.load(of_folder(root))
    assert {"clear/IM000001", "clear/1.2.840.33", "clear/x.dicom"} < set(loaded.names)
    assert loaded.notes == (
        f"{root}: 5 files were passed over: 1 hidden (first 'clear/.DS_Store'), 1 no regular file (first "
        "'clear/pipe.png'), 2 neither named as an image nor DICOM by content (first 'clear/notes.txt'), "
        "1 beside the folders of classes (first 'labels.csv')",
    )
    save_dataset(tmp_path / "images.safetensors", loaded)
    assert load_dataset(tmp_path / "images.safetensors").notes == loaded.notes


def test_an_image_in_a_tenth_of_the_range_is_reported(root: Path) -> None:
    """Twelve bits in sixteen, which the file does not say: 4095 / 65535."""
    assert FOLDER.load(of_folder(root)).notes == ()
    twelve = np.random.default_rng(0).integers(0, 4096, (16, 16)).astype(np.uint16)
    write_image(root / "clear" / "dark.png", twelve)
    expected = f"{root}: 1 of 16 images use under 10% of the range from black to white (first 'clear/dark.png')"
    assert FOLDER.load(of_folder(root)).notes == (expected,)


def test_overlays_are_reported(root: Path) -> None:
    dataset = pydicom.dcmread(write_dicom(root / "clear" / "x.dcm"))
    dataset.add_new(0x60003000, "OW", bytes(32))
    dataset.save_as(root / "clear" / "x.dcm")
    assert "1 of 16 images have a layer of graphics" in FOLDER.load(of_folder(root)).notes[0]


@pytest.mark.parametrize("name", [b"new\nline.png", b"\x1b[31m.png", b"latin-\xe9.png"])
def test_names_that_a_page_or_terminal_cannot_show_are_refused(name: bytes, root: Path) -> None:
    Path(os.fsdecode(bytes(root / "clear") + b"/" + name)).write_bytes(b"")
    message = said(of_folder(root))
    assert "holds control characters or is not Unicode" in message
    assert message.isprintable()


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("images", np.full((2, 1, 4, 4), 1.5, np.float32), "expected float32 in [0, 1]"),
        ("images", np.zeros((2, 1, 4, 4), np.float64), "expected float32 in [0, 1]"),
        ("labels", np.array([0, 2]), "expected int64 from 0 to 1"),
        ("labels", np.array([0, -1]), "expected int64 from 0 to 1"),
        ("labels", np.array([0]), "one for each image"),
    ],
)
def test_a_stored_data_set_is_checked(field: str, value: np.ndarray, said: str, tmp_path: Path) -> None:
    arrays = {"images": np.zeros((2, 1, 4, 4), np.float32), "labels": np.array([0, 1])}
    write_arrays(tmp_path / "x.safetensors", DATASET, arrays | {field: value}, {"classes": ["a", "b"]})
    with pytest.raises(LeakpipeError) as raised:
        load_dataset(tmp_path / "x.safetensors")
    assert f"tensor {field!r}" in str(raised.value)
    assert said in str(raised.value)


@pytest.mark.parametrize("wrong", ["12", [1.5], [True], [-1], ["1"], None, {"1": 2}])
def test_a_split_holds_lists_of_whole_numbers(wrong: object, tmp_path: Path) -> None:
    content = {"seed": 0, "clients": {"a": [0]}, "validation": [1], "test": [2], "public": wrong}
    (tmp_path / "split.json").write_text(json.dumps(content))
    with pytest.raises(LeakpipeError, match="is not a split of a data set"):
        load_split(tmp_path / "split.json")
