"""`leakpipe identify` on files made here: the right images, models and priors meet, and bad input is one sentence."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from leakpipe.attacks.files import save_reconstruction
from leakpipe.cli.main import main
from leakpipe.data.files import save_dataset, save_split
from leakpipe.data.images import LabeledImages
from leakpipe.data.partition import Split
from leakpipe.federation.files import load_model, save_model
from leakpipe.models.features import penultimate_features
from leakpipe.models.state import build_module, initial_state
from leakpipe.params.models import ModelParams
from leakpipe.records.code_version import imported_modules
from leakpipe.tables.table import KEY, SCORE_COLUMNS, collect_identifiability, identifiability_columns

CLIENTS = {"one": (5,), "three": (9, 2, 7)}
CANDIDATES = [2, 5, 7, 9]
MATCHED = {9: 1, 2: 2, 7: 0}  # true image: its reconstruction
MODEL = ModelParams(name="convnet-bn", widths=(4,), strides=(1,))
PIXELS = np.random.default_rng(0).random((12, 1, 16, 16), dtype=np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images, split, the global models of two rounds, reconstructions of three images, their scores."""
    save_dataset(tmp_path / "images.safetensors", LabeledImages(PIXELS, np.zeros(12, np.int64), ("face",)))
    public = tuple(index for index in range(12) if index not in CANDIDATES)
    save_split(tmp_path / "split.json", Split(clients=CLIENTS, validation=(), test=(), public=public), seed=4)
    scores = []
    for captured in (1, 2):
        state = initial_state(build_module(MODEL, classes=1, image_size=16), seed=captured)
        save_model(tmp_path / f"model{captured}.safetensors", state, params=MODEL, classes=1, image_size=16)
        cell = {"experiment": "e", "defense": "none", "seed": 4, "round": captured, "client": "three", "attack": "a"}
        rebuilt = np.empty((3, 1, 16, 16), np.float32)
        for image, reconstruction in MATCHED.items():
            rebuilt[reconstruction] = 0.9 * PIXELS[image] + 0.1 * PIXELS[0]
        rebuilt[0] = PIXELS[5]  # of another client: never the nearest to its own image
        save_reconstruction(
            tmp_path / f"round{captured}.safetensors",
            rebuilt,
            labels=np.zeros(3, np.int64),
            prior=PIXELS[[9, 7, 2]],  # in the client's order: that of image 9 is itself, the others are each other
            cell=cell,
            iterations=1,
        )
        scores += [{**cell, "image": image, "reconstruction": index} for image, index in sorted(MATCHED.items())]
    pd.DataFrame(scores, columns=SCORE_COLUMNS).to_csv(tmp_path / "scores.csv", index=False)
    return tmp_path


def arguments(
    folder: Path, embedders: list[str], *, rounds: tuple[int, ...] = (1, 2), models: bool = True
) -> list[str]:
    settings = json.dumps({"embedders": embedders, "top": [1, 2]})
    listed: list[Any] = ["identify", "--identifiability", settings, "--images", folder / "images.safetensors"]
    listed += ["--split", folder / "split.json", "--scores", folder / "scores.csv", "--out", folder / "out.csv"]
    for captured in rounds:
        listed += ["--reconstruction", folder / f"round{captured}.safetensors"]
        listed += ["--global-model", folder / f"model{captured}.safetensors"] if models else []
    return list(map(str, listed))


def looked_up(folder: Path, embedders: list[str], **options: Any) -> pd.DataFrame:
    done = CliRunner().invoke(main, arguments(folder, embedders, **options))
    assert done.exit_code == 0, done.output
    return pd.read_csv(folder / "out.csv")


def refuse(listed: list[str], *, code: int = 1) -> str:
    done = CliRunner().invoke(main, listed)
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    return done.output


def test_every_reconstruction_is_looked_up_among_all_clients_images(folder: Path) -> None:
    table = looked_up(folder, ["pixels"], models=False)
    assert list(table.columns) == identifiability_columns((1, 2))
    assert table[[*KEY, "embedder"]].drop(columns="round").drop_duplicates().shape[0] == 1
    assert dict(zip(table.image, table.reconstruction, strict=True)) == MATCHED
    first = table[table["round"] == 1].set_index("image")
    assert first["candidates"].eq(4).all()
    assert first.top1.to_dict() == {2: 1, 7: 0, 9: 1}
    assert first.top1_prior.to_dict() == {2: 0, 7: 0, 9: 1}
    distances = ((PIXELS[CANDIDATES] - PIXELS[5]) ** 2).sum(axis=(1, 2, 3))
    assert first["rank"][7] == 1 + np.argsort(distances).tolist().index(CANDIDATES.index(7))


def test_features_are_those_of_the_model_of_the_attacked_round(folder: Path) -> None:
    table = looked_up(folder, ["global-model", "pixels"]).query("embedder == 'global-model'")
    for captured in (1, 2):
        state = load_model(folder / f"model{captured}.safetensors")
        features = penultimate_features(state, torch.from_numpy(PIXELS)).numpy()
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        cosines = features[CANDIDATES] @ features[5]
        place = 1 + np.argsort(-cosines).tolist().index(CANDIDATES.index(7))
        assert table[(table["round"] == captured) & (table.image == 7)]["rank"].item() == place


def test_the_same_bytes_twice_and_one_table_of_all(folder: Path) -> None:
    looked_up(folder, ["pixels", "global-model"])
    first = (folder / "out.csv").read_bytes()
    table = looked_up(folder, ["pixels", "global-model"])
    assert (folder / "out.csv").read_bytes() == first
    together = collect_identifiability([table], top=(1, 2))
    order = [*KEY, "image", "embedder"]
    pd.testing.assert_frame_equal(together, table.sort_values(order, ignore_index=True))


def test_what_does_not_fit_together_is_said(folder: Path) -> None:
    said = refuse(arguments(folder, ["global-model"], models=False))
    assert said.splitlines()[-1] == "Error: embedder 'global-model' needs the global model of the attacked round"
    assert "must be as many" in refuse(arguments(folder, ["pixels"])[:-2], code=2)
    assert "embedders.0: 'eyes' is not valid" in refuse(arguments(folder, ["eyes"]))
    scores = pd.read_csv(folder / "scores.csv")
    scores[scores["round"] == 1].to_csv(folder / "scores.csv", index=False)
    said = refuse(arguments(folder, ["pixels"]))
    assert f"{folder / 'round2.safetensors'}: --scores has no rows for experiment 'e', defense 'none', seed 4" in said
    split = json.loads((folder / "split.json").read_text())
    (folder / "split.json").write_text(json.dumps({**split, "seed": 9}))
    assert "its seed 4 has no --split" in refuse(arguments(folder, ["pixels"]))
    assert not (folder / "out.csv").exists()


def test_attacks_do_not_depend_on_how_they_are_measured() -> None:
    measured = imported_modules("leakpipe.cli.identify")
    assert "leakpipe.metrics.embedders" in measured
    for stage in ("federate", "invert", "score", "collect"):
        assert not imported_modules(f"leakpipe.cli.{stage}") & {
            "leakpipe.metrics.identifiability",
            "leakpipe.metrics.embedders",
            "leakpipe.models.features",
        }
