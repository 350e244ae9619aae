"""`leakpipe score` on files made here: each image's own texts meet its own reconstruction and prior."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from leakpipe.attacks.files import save_reconstruction
from leakpipe.cli.main import main
from leakpipe.data.datasets import DATASETS
from leakpipe.data.files import save_dataset, save_split
from leakpipe.data.images import LabeledImages
from leakpipe.data.partition import Split
from leakpipe.metrics.legibility import measure_legibility
from leakpipe.params.data import ImagesParams
from leakpipe.tables.table import SCORE_COLUMNS, read_table

HELD = (4, 1)
PHANTOMS = DATASETS["cxr-phantom"].load(ImagesParams(dataset="cxr-phantom", image_size=128, images=6, burned_text=True))
SWAPPED = np.stack([0.8 * PHANTOMS.images[1], 0.9 * PHANTOMS.images[4]])  # in the other order than the client holds
PRIOR = np.stack([PHANTOMS.images[0], PHANTOMS.images[2]])


def scored(folder: Path, dataset: LabeledImages) -> pd.DataFrame:
    save_dataset(folder / "images.safetensors", dataset)
    save_split(folder / "split.json", Split(clients={"two": HELD}, validation=(), test=(), public=(0,)), seed=3)
    cell = {"experiment": "e", "defense": "none", "seed": 3, "round": 1, "client": "two", "attack": "a"}
    labels = np.zeros(2, np.int64)
    save_reconstruction(folder / "r.safetensors", SWAPPED, labels=labels, prior=PRIOR, cell=cell, iterations=1)
    listed = ["score", "--images", folder / "images.safetensors", "--split", folder / "split.json"]
    listed += ["--reconstruction", folder / "r.safetensors", "--scoring", json.dumps({}), "--out", folder / "s.csv"]
    done = CliRunner().invoke(main, list(map(str, listed)))
    assert done.exit_code == 0, done.output
    table = read_table(folder / "s.csv", SCORE_COLUMNS)  # as the jobs do that come next
    assert list(table.columns) == SCORE_COLUMNS
    return table


def test_columns_are_what_measure_legibility_says(tmp_path: Path) -> None:
    for row in scored(tmp_path, PHANTOMS).itertuples():
        position = HELD.index(row.image)
        assert row.reconstruction == 1 - position
        found = measure_legibility(SWAPPED[row.reconstruction], PRIOR[position], *PHANTOMS.texts_of(row.image))
        assert row.text_accuracy == found.accuracy == 1
        assert row.text_accuracy_prior == pytest.approx(found.prior_accuracy)
        assert found.prior_accuracy < 0.8
        assert row.text_chance == pytest.approx(found.chance)
        assert row.text_read == found.read == " ".join(text.characters for text in PHANTOMS.texts_of(row.image))


def test_images_without_text_leave_the_columns_empty(tmp_path: Path) -> None:
    table = scored(tmp_path, LabeledImages(PHANTOMS.images, PHANTOMS.labels, PHANTOMS.classes))
    assert table.filter(like="text_").isna().all(axis=None)
