"""Data sets, their partition over clients, and the prior image."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from leakpipe.data.datasets import DATASETS
from leakpipe.data.files import load_split, save_split
from leakpipe.data.images import Dataset, LabeledImages
from leakpipe.data.partition import Split, split_dataset
from leakpipe.data.priors import average_public_images, choose_priors
from leakpipe.errors import LeakpipeError
from leakpipe.experiment.reading import load_params
from leakpipe.params.data import FROM_DISK, PHANTOM_SETS, ImagesParams
from leakpipe.params.federation import ClientParams
from tests.conftest import PROJECT

PARAMS = load_params(PROJECT / "params.yaml")
FACES = DATASETS["lfw-faces"].load(ImagesParams(dataset="lfw-faces", image_size=24))
LABELS = np.repeat([0, 1], 100)


def split(seed: int) -> Split:
    return split_dataset(LABELS, FACES.classes, PARAMS.data, PARAMS.federation.clients, seed=seed)


def parts(whole: Split) -> dict[str, tuple[int, ...]]:
    return {**whole.clients, "validation": whole.validation, "test": whole.test, "public": whole.public}


@pytest.mark.parametrize("name", sorted(set(DATASETS) - set(FROM_DISK)))
def test_a_data_set_is_what_its_entry_says(name: str) -> None:
    entry = DATASETS[name]
    params = ImagesParams(dataset=name, image_size=24, images=20 if name in PHANTOM_SETS else None)
    loaded, contents = entry.load(params), entry.contents(params)
    assert contents
    assert loaded.images.shape == (contents.images, 1, *[24] * contents.axes)
    assert loaded.images.dtype == np.float32
    assert 0 <= loaded.images.min() < loaded.images.max() <= 1
    assert np.unique(loaded.labels).tolist() == list(range(2 if contents.multi_label else len(contents.classes)))
    assert loaded.classes == contents.classes


@pytest.mark.parametrize("entry", DATASETS.values(), ids=list(DATASETS))
def test_a_data_set_says_where_it_is_from(entry: Dataset) -> None:
    assert all((entry.source, entry.licence, entry.citation))


@pytest.mark.parametrize("seed", PARAMS.seeds)
def test_no_image_is_in_two_parts(seed: int) -> None:
    """In particular nobody else sees the image of the client that has one."""
    chosen = parts(split(seed))
    assert all(len(set(indices)) == len(indices) for indices in chosen.values())
    for (one, first), (other, second) in combinations(chosen.items(), 2):
        assert not set(first) & set(second), (one, other)


def test_parts_have_the_asked_sizes_and_are_balanced() -> None:
    whole = split(0)
    for name, client in PARAMS.federation.clients.items():
        assert len(whole.clients[name]) == client.images
    assert (len(whole.test), len(whole.validation), len(whole.public)) == (60, 0, 42)
    for indices in (whole.test, whole.validation, whole.public, whole.clients["site-2"]):
        faces = int((LABELS[list(indices)] == 0).sum())
        assert abs(2 * faces - len(indices)) <= 1
    for name in ("site-9", "site-5", "site-1"):
        assert (LABELS[list(whole.clients[name])] == 0).all()


def test_seeds_give_different_victims_and_the_same_seed_the_same() -> None:
    victims = {split(seed).clients["site-9"] for seed in PARAMS.seeds}
    assert len(victims) == len(PARAMS.seeds) >= 5
    assert split(3) == split(3)


def test_a_class_that_runs_out_is_said() -> None:
    clients = {"greedy": ClientParams(images=101, batch_size=1, classes=("face",))}
    with pytest.raises(LeakpipeError, match=r"class face .* client 'greedy'"):
        split_dataset(LABELS, FACES.classes, PARAMS.data, clients, seed=0)


def test_a_split_survives_json() -> None:
    whole = split(1)
    assert Split.from_json(whole.to_json(), source="x") == whole
    with pytest.raises(LeakpipeError, match="client 'nobody' is not in the split, which has "):
        whole.images_of("nobody")
    with pytest.raises(LeakpipeError, match="x: is not a split"):
        Split.from_json({"clients": {}}, source="x")


def test_a_split_of_more_images_than_there_are_is_refused(tmp_path: Path) -> None:
    save_split(tmp_path / "s.json", Split({"a": (0, 5)}, (1,), (2,), (7,)), seed=3)
    assert load_split(tmp_path / "s.json", images=8)[1] == 3
    with pytest.raises(LeakpipeError, match=r"s\.json: has image 7, expected numbers below 7"):
        load_split(tmp_path / "s.json", images=7)


def test_priors_are_means_of_public_images_only() -> None:
    images, labels = FACES.images, FACES.labels
    public = split(0).public
    priors = average_public_images(LabeledImages(images, labels, FACES.classes), public)
    np.testing.assert_allclose(priors["all"], np.mean([images[i] for i in public], axis=0), atol=1e-6)
    faces = [images[i] for i in public if labels[i] == 0]
    np.testing.assert_allclose(priors["class0"], np.mean(faces, axis=0), atol=1e-6)
    assert choose_priors(priors, "all", [0, 1]).shape == (2, 1, 24, 24)
    np.testing.assert_array_equal(choose_priors(priors, "class", [1, 0])[0], priors["class1"])
    gray = choose_priors(priors, "gray", [1, 0])
    assert (gray.shape, gray.dtype, gray.min(), gray.max()) == ((2, 1, 24, 24), np.float32, 0.5, 0.5)


def test_a_class_without_public_images_is_said() -> None:
    images, labels = FACES.images, FACES.labels
    with pytest.raises(LeakpipeError, match="hold none of class 'background'"):
        average_public_images(LabeledImages(images, labels, FACES.classes), [0, 1, 2])
