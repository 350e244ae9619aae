"""Splits by published lists: what they give, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leakpipe.data.datalists import read_datalist, split_by_datalists
from leakpipe.data.datasets import DATASETS
from leakpipe.data.images import LabeledImages
from leakpipe.data.partition import Split
from leakpipe.errors import LeakpipeError
from leakpipe.params.data import DataParams
from leakpipe.params.federation import ClientParams
from tests.unit.data_files import write_folder

Lists = dict[str, dict[str, list[dict[str, Any]]]]


def entries(name: str, *numbers: int) -> list[dict[str, Any]]:
    return [{"image": f"{name}/{name}-{number}.png", "label": [int(name == "opacity")]} for number in numbers]


def published() -> Lists:
    """Lists like the paper's: site-9's image is also site-1's, and both validate on the same images."""
    return {
        "site-1": {
            "training": entries("clear", 1, 2) + entries("opacity", 1, 2),
            "validation": entries("clear", 3) + entries("opacity", 3),
            "unused": entries("clear", 8),
        },
        "site-9": {
            "training": entries("clear", 2),
            "validation": entries("clear", 3) + entries("opacity", 3),
            "testing": entries("clear", 4) + entries("opacity", 4),
        },
    }


CLIENTS = {"site-1": ClientParams(images=4, batch_size=2), "site-9": ClientParams(images=1, batch_size=1)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "xrays", {"clear": 9, "opacity": 7})


def params(root: Path, **changes: Any) -> DataParams:
    parts = {"test": 2, "validation": 2, "public": 4, "datalists": str(root.parent / "lists")}
    return DataParams.model_validate(
        {"dataset": "image-folder", "image_size": 16, "root": str(root), **parts, **changes}
    )


def split(root: Path, lists: Lists, *, seed: int = 0, **changes: Any) -> tuple[Split, LabeledImages]:
    for name, content in lists.items():
        path = root.parent / "lists" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    data = params(root, **changes)
    dataset = DATASETS["image-folder"].load(data)
    return split_by_datalists(dataset, data, CLIENTS, seed=seed), dataset


def named(dataset: LabeledImages, indices: tuple[int, ...]) -> list[str]:
    return [dataset.names[index].split("/")[1].removesuffix(".png") for index in indices]


def test_the_split_is_that_of_the_lists(root: Path) -> None:
    whole, dataset = split(root, published())
    assert named(dataset, whole.clients["site-1"]) == ["clear-1", "clear-2", "opacity-1", "opacity-2"]
    assert named(dataset, whole.clients["site-9"]) == ["clear-2"], "two clients may hold the same image"
    assert named(dataset, whole.validation) == ["clear-3", "opacity-3"], "pooled, each once"
    assert named(dataset, whole.test) == ["clear-4", "opacity-4"]


def test_public_images_are_in_no_list_and_balanced_and_drawn_by_seed(root: Path) -> None:
    drawn = set()
    for seed in range(5):
        whole, dataset = split(root, published(), seed=seed)
        names = named(dataset, whole.public)
        listed = {number for part in ("clear", "opacity") for number in [f"{part}-{n}" for n in (1, 2, 3, 4)]}
        assert not set(names) & listed
        assert sorted(dataset.labels[list(whole.public)].tolist()) == [0, 0, 1, 1]
        drawn.add(tuple(names))
    assert len(drawn) > 1
    assert split(root, published(), seed=3)[0] == split(root, published(), seed=3)[0]


def test_lists_of_clients_that_do_not_take_part_are_not_public(root: Path) -> None:
    """Their images are somebody's, so the attacker does not know them."""
    lists = published() | {"site-5": {"training": entries("clear", 5, 6) + entries("opacity", 5)}}
    whole, dataset = split(root, lists)
    assert not {"clear-5", "clear-6", "opacity-5"} & set(named(dataset, whole.public))


def test_a_limit_keeps_what_is_listed(root: Path) -> None:
    whole, dataset = split(root, published(), images=12)
    assert len(dataset.names) == 12
    assert len(whole.public) == 4
    assert np.bincount(dataset.labels).tolist() == [6, 6]


def said(root: Path, lists: Lists, **changes: Any) -> str:
    with pytest.raises(LeakpipeError) as raised:
        split(root, lists, **changes)
    return str(raised.value).replace(str(root.parent / "lists"), "lists")


def with_entry(image: Any, label: Any) -> Lists:
    lists = published()
    lists["site-9"]["training"] = [{"image": image, "label": label}]
    return lists


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [
        ("../secret.png", [0], "image: '../secret.png' leaves the data set's folder"),
        ("clear/../../secret.png", [0], "image: 'clear/../../secret.png' leaves the data set's folder"),
        ("..\\secret.png", [0], "image: '..\\\\secret.png' leaves the data set's folder"),
        ("/etc/secret.png", [0], "image: '/etc/secret.png' leaves the data set's folder"),
        ("clear/clear-99.png", [0], "image: 'clear/clear-99.png' is not an image of the data set"),
        ("clear/clear-5.png", [2], "label: 2 is out of range, expected 0 to 1"),
        ("clear/clear-5.png", [-1], "label: -1 is out of range, expected 0 to 1"),
        ("clear/clear-5.png", [1], "label: 1 (opacity), but the image is in the folder of clear (0)"),
    ],
)
def test_an_entry_that_is_wrong_is_named(image: str, label: list[int], message: str, root: Path) -> None:
    assert said(root, with_entry(image, label)).startswith(f"lists/site-9.json: training[0].{message}")


@pytest.mark.parametrize(("image", "label"), [(3, [0]), ("clear/clear-5.png", "0"), ("clear/clear-5.png", [0, 1])])
def test_an_entry_of_another_form_is_named(image: Any, label: Any, root: Path) -> None:
    assert said(root, with_entry(image, label)).startswith("lists/site-9.json: training[0]: {")


def test_a_label_may_be_a_number_and_a_path_may_start_with_a_dot(root: Path) -> None:
    whole, dataset = split(root, with_entry("./clear/clear-5.png", 0))
    assert named(dataset, whole.clients["site-9"]) == ["clear-5"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test": 3}, "data.test: 3, but the lists in lists hold 2 "),
        ({"validation": 4}, "data.validation: 4, but the lists in lists hold 2 "),
        ({"public": 9}, "data: class clear/opacity has too few images for the public part"),
    ],
)
def test_parts_of_another_size_are_refused(changes: dict[str, int], message: str, root: Path) -> None:
    assert said(root, published(), **changes).startswith(message)


@pytest.mark.parametrize(
    ("part", "added", "message"),
    [
        ("training", ["clear-7"], "federation.clients.site-9.images: 1, but the lists in lists/site-9.json hold 2 "),
        ("training", ["clear-2"], "lists/site-9.json: training: names an image twice"),
        ("testing", ["clear-1"], "lists: 'clear/clear-1.png' is in two of training, validation and test"),
    ],
)
def test_lists_that_contradict_are_refused(part: str, added: list[str], message: str, root: Path) -> None:
    lists = published()
    lists["site-9"][part] += [entry for name in added for entry in entries("clear", int(name[-1]))]
    more = {"test": 3} if part == "testing" else {}
    assert said(root, lists, **more).startswith(message)


def test_a_client_without_a_list_is_named(root: Path) -> None:
    lists = {"site-1": published()["site-1"]}
    assert said(root, lists).startswith("lists/site-9.json: cannot be read: No such file")


def test_a_folder_without_lists_is_named(root: Path) -> None:
    data = params(root)
    with pytest.raises(LeakpipeError, match=r"data\.datalists: '.*lists' holds no list"):
        DATASETS["image-folder"].load(data)


@pytest.mark.parametrize(
    ("content", "message"),
    [({}, "training: required, but missing"), ({"training": 3}, "training: 3, expected a list")],
)
def test_a_file_that_is_no_list_is_named(content: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "site-1.json"
    path.write_text(json.dumps(content))
    with pytest.raises(LeakpipeError) as raised:
        read_datalist(path)
    assert str(raised.value) == f"{path}: {message}"
