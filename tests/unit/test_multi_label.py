"""Images with several labels: loaded, split, trained on, attacked; and labels recovered from one image's update."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from leakpipe.attacks.labels import recover_label_set
from leakpipe.attacks.observation import KnownClient, Observation
from leakpipe.attacks.optimise import invert
from leakpipe.attacks.rehearsal import rehearse
from leakpipe.client.local_update import LocalSettings
from leakpipe.data.datasets import DATASETS
from leakpipe.data.files import load_dataset, save_dataset
from leakpipe.data.findings_phantom import FINDINGS, find_labels, make_drawing
from leakpipe.data.images import LabeledImages
from leakpipe.data.partition import split_dataset
from leakpipe.data.priors import average_public_images
from leakpipe.errors import LeakpipeError
from leakpipe.experiment.reading import parse_params
from leakpipe.federation.simulate import measure_accuracy
from leakpipe.files.storage import write_arrays
from leakpipe.metrics.labels import label_accuracy
from leakpipe.models.state import forward_frozen
from leakpipe.params.attack_settings import AttackSettings
from leakpipe.params.data import DataParams, ImagesParams
from leakpipe.params.federation import ClientParams
from leakpipe.params.reading import merge, read_yaml
from leakpipe.params.training import AdamParams, LossParams, SgdParams, TrainingParams
from tests.conftest import PROJECT
from tests.unit.attacking import changed, observe, small_model
from tests.unit.test_medmnist import MEDMNIST, arrays
from tests.unit.test_medmnist import of as medmnist_of
from tests.unit.test_medmnist import said as medmnist_said

LOSS = LossParams(kind="binary-cross-entropy")
BINARY = TrainingParams(loss=LOSS)
COMBINATIONS = [find_labels(index) for index in range(8)]


def drawings(*numbers: int, size: int = 16) -> torch.Tensor:
    return torch.from_numpy(np.stack([make_drawing(number, size)[None] for number in numbers]))


def observe_several(
    images: torch.Tensor, labels: list[tuple[int, ...]], training: TrainingParams = BINARY, **more: Any
) -> Observation:
    """As `observe`, of a client whose images have several labels each."""
    settings = LocalSettings(learning_rate=0.02, training=training)
    targets = torch.tensor(labels, dtype=torch.float32)
    seen = observe(small_model(size=16), images, targets[:, 0].long(), trained=settings, **more)
    from leakpipe.client.batches import assume_schedule, make_batches
    from leakpipe.client.local_update import local_update

    client = seen.client
    schedule = assume_schedule(client.images, client.batch_size, client.epochs)
    update = local_update(seen.before, make_batches(images, targets, schedule), settings)
    return changed(seen, update=update, labels=targets, multi_label=True)


def test_the_phantom_has_every_combination_of_findings_and_shows_them() -> None:
    params = ImagesParams(dataset="findings-phantom", image_size=24, images=16)
    loaded, contents = DATASETS["findings-phantom"].load(params), DATASETS["findings-phantom"].contents(params)
    assert contents is not None
    assert contents.multi_label
    assert (contents.classes, contents.images) == (FINDINGS, 16)
    assert {tuple(row) for row in loaded.labels.tolist()} == set(COMBINATIONS)
    many = np.stack([make_drawing(index, 24) for index in range(160)])
    shown = np.array([find_labels(index) for index in range(160)])
    below = many[:, 16:19].mean(axis=(1, 2))
    assert below[shown[:, 1] == 1].mean() > below[shown[:, 1] == 0].mean() + 0.05


def test_splits_count_an_image_for_the_first_of_its_labels() -> None:
    dataset = LabeledImages(np.zeros((4, 1, 2, 2), np.float32), np.array([[0, 1], [1, 1], [0, 0], [0, 1]]), ("a", "b"))
    strata, names = dataset.strata
    assert strata.tolist() == [1, 0, 2, 1]
    assert names == ("a", "b", "none")
    params = DataParams(dataset="findings-phantom", image_size=16, images=40, test=8, validation=0, public=4)
    loaded = DATASETS["findings-phantom"].load(params)
    one, two = ClientParams(images=4, batch_size=2, classes=("nodule",)), ClientParams(images=8, batch_size=4)
    parts = split_dataset(*loaded.strata, params, {"one": one, "two": two}, seed=0)
    assert loaded.labels[list(parts.clients["one"]), 0].all()
    assert set(average_public_images(loaded, parts.public)) == {"all"}


def test_files_keep_several_labels_and_refuse_others(tmp_path: Path) -> None:
    loaded = DATASETS["findings-phantom"].load(ImagesParams(dataset="findings-phantom", image_size=16, images=8))
    path = tmp_path / "images.safetensors"
    save_dataset(path, loaded)
    np.testing.assert_array_equal(load_dataset(path).labels, loaded.labels)
    for wrong in (loaded.labels[:, :2], loaded.labels + 1):
        content = {"images": loaded.images, "labels": np.ascontiguousarray(wrong)}
        write_arrays(path, "leakpipe/dataset", content, {"classes": list(FINDINGS)})
        with pytest.raises(LeakpipeError, match="expected int64 from 0 to 1, 3 for each image"):
            load_dataset(path)


def test_chestmnist_keeps_its_fourteen_labels(tmp_path: Path) -> None:
    made = arrays()
    rng = np.random.default_rng(1)
    for split in ("train", "val", "test"):
        made[f"{split}_labels"] = rng.integers(0, 2, (len(made[f"{split}_images"]), 14)).astype(np.uint8)
    np.savez(tmp_path / "chestmnist.npz", **made)
    params = medmnist_of(tmp_path, subset="chestmnist")
    loaded, contents = MEDMNIST.load(params), MEDMNIST.contents(params)
    assert contents is not None
    assert contents.multi_label
    expected = np.concatenate([made[f"{split}_labels"] for split in ("train", "val", "test")])
    np.testing.assert_array_equal(loaded.labels, expected)
    assert len(loaded.classes) == 14
    np.savez(tmp_path / "chestmnist.npz", **{**made, "val_labels": made["val_labels"][:, :1]})
    assert "expected whole numbers (N, 14)" in medmnist_said(params)


def test_accuracy_is_the_share_of_right_labels() -> None:
    state, images = small_model(size=16), drawings(0, 1, 2, 3)
    with torch.no_grad():
        logits = forward_frozen(state, images)
    right = (logits > 0).float()
    assert measure_accuracy(state, images, right, range(4)) == 1
    right[0, 0] = 1 - right[0, 0]
    assert measure_accuracy(state, images, right, range(4)) == pytest.approx(11 / 12)


@pytest.mark.parametrize(
    "training",
    [
        BINARY,
        BINARY.model_copy(update={"loss": LOSS.model_copy(update={"reduction": "sum", "factor": 0.5})}),
        BINARY.model_copy(update={"loss": LOSS.model_copy(update={"class_weights": (0.2, 5.0, 1.0)})}),
        BINARY.model_copy(update={"optimizer": SgdParams(kind="sgd", momentum=0.9, weight_decay=0.01)}),
        BINARY.model_copy(update={"optimizer": AdamParams(kind="adam")}),
    ],
    ids=["mean", "sum", "weights", "momentum", "adam"],
)
@pytest.mark.parametrize("epochs", [1, 2])
def test_one_images_labels_are_recovered_whatever_they_are(training: TrainingParams, epochs: int) -> None:
    for number, labels in enumerate(COMBINATIONS):
        seen = observe_several(drawings(number), [labels], training, epochs=epochs)
        assert recover_label_set(changed(seen, labels=None), training).tolist() == [list(map(float, labels))]


def test_an_attack_recovers_labels_and_image_without_being_told() -> None:
    seen = changed(observe_several(drawings(6), [COMBINATIONS[6]]), labels=None)
    found = invert(seen, AttackSettings(iterations=60, batch_norm_weight=1.0), seed=0)
    assert found.labels.tolist() == [[0, 1, 1]]
    assert "The image's labels were recovered from the head's gradient: 1, 2." in found.notes
    assert not any("head moved" in note for note in found.notes), "the belief is right, and not doubted"
    assert found.explained is not None
    assert found.explained > 0.5


@pytest.mark.parametrize(
    ("settings", "training", "images", "said"),
    [
        ({}, BINARY, 2, "of 2 images with several labels each cannot be recovered"),
        ({}, TrainingParams(), 1, "several of an image cannot be recovered from cross-entropy"),
        ({"labels": "joint"}, BINARY, 1, "joint searches one class for each image"),
    ],
)
def test_what_cannot_be_recovered_is_said(
    settings: dict[str, Any], training: TrainingParams, images: int, said: str
) -> None:
    seen = observe_several(drawings(*range(1, images + 1)), COMBINATIONS[1 : images + 1], training)
    with pytest.raises(LeakpipeError, match=said):
        invert(changed(seen, labels=None), AttackSettings(iterations=1, **settings), seed=0)


def test_labels_that_are_not_granted_do_not_count_for_one_class_each() -> None:
    with pytest.raises(LeakpipeError, match=r"labels: shape \(2, 3\), expected 0 or 1 for each class, \(2, classes\)"):
        KnownClient(images=2, batch_size=2, epochs=1, labels=torch.full((2, 3), 0.5), multi_label=True)
    seen = observe_several(drawings(0, 1), COMBINATIONS[:2])
    with pytest.raises(LeakpipeError, match="labels: for 2 classes, expected 3, the model's classes"):
        rehearse(changed(seen, labels=torch.ones(2, 2)))


def test_label_accuracy_wants_all_labels_of_an_image() -> None:
    true = np.array([[1, 0], [1, 1]])
    assert label_accuracy(true[::-1], true) == 1
    assert label_accuracy(np.array([[1, 0], [0, 1]]), true) == 0.5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"federation": {"training": {"loss": {"kind": "cross-entropy"}}}},
            "loss.kind: cross-entropy, expected binary-cross-entropy",
        ),
        (
            {"attacks": {"leakpipe": {"threat_model": {"prior": "class"}}}},
            "threat_model.prior: class, expected all or gray",
        ),
        ({"model": {"weights": "public"}}, "model.weights: public is trained by cross-entropy"),
        ({"defenses": {"gaussian-1": [{"kind": "mixup"}]}}, "mixup blends one class with another"),
        ({"attacks": {"leakpipe": {"labels": "joint"}}}, "labels: joint searches one class for each image"),
    ],
)
def test_what_does_not_fit_several_labels_is_refused_before_anything_runs(changes: dict[str, Any], said: str) -> None:
    overlay = read_yaml(PROJECT / "experiments" / "multi-label.yaml")
    params = merge(read_yaml(PROJECT / "params.yaml"), overlay)
    parse_params(params, source="whole")
    with pytest.raises(LeakpipeError, match=said):
        parse_params(merge(params, changes), source="changed")
