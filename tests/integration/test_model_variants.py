"""Pretrained weights, group normalisation and FedBN through the command line, from images to scores."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from leakpipe.files.storage import read_arrays
from tests.integration.test_cli import DATA, FEDERATION, MODEL, SHORT, invert_arguments, leakpipe, refuse, succeed

STATISTICS_ALONE = json.dumps({**json.loads(SHORT), "objective_weight": 0.0})
WITHOUT_STATISTICS = json.dumps({"batch_norm_weight": 0.0, "iterations": 30, "step_size": 0.01})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    images, split, prior = (folder / name for name in ("images.safetensors", "split.json", "prior.safetensors"))
    succeed("prepare-data", "--images", json.dumps({"dataset": "lfw-faces", "image_size": 16}), "--out", images)
    succeed("split-data", "--data-params", json.dumps(DATA), "--clients", json.dumps(FEDERATION["clients"]),
            "--images", images, "--seed", 3, "--split", split, "--prior", prior)  # fmt: skip
    return folder


def arguments(data: Path, out: Path, *options: object, model: dict[str, Any], **federation: Any) -> list[object]:
    return ["federate", "--model", json.dumps({**MODEL, **model}), "--defense", "[]",
            "--federation", json.dumps({**FEDERATION, **federation}), "--attacked", "site-1", *options,
            "--images", data / "images.safetensors", "--split", data / "split.json", "--out-dir", out,
            "--label", "experiment=tiny", "--label", "defense=none"]  # fmt: skip


def pretrain(data: Path, out: Path, model: dict[str, Any]) -> list[object]:
    return ["pretrain", "--model", json.dumps({**MODEL, **model}), "--images", data / "images.safetensors",
            "--split", data / "split.json", "--out", out, "--record", out.with_name("record.json")]  # fmt: skip


def test_federate_says_which_label_is_missing(data: Path, tmp_path: Path) -> None:
    without = [option for option in arguments(data, tmp_path, model={}) if option != "defense=none"][:-1]
    assert "--label defense=… is missing" in leakpipe(*without).output


@pytest.mark.parametrize(
    ("model", "federation", "said"),
    [
        ({"normalization": "group"}, {}, "the model has no batch normalisation"),
        ({}, {"batch_norm_sharing": "local"}, "needs running statistics in the update, but they are withheld"),
    ],
    ids=["group normalisation", "FedBN"],
)
def test_from_images_to_scores(
    data: Path, tmp_path: Path, model: dict[str, Any], federation: dict[str, Any], said: str
) -> None:
    out = tmp_path / "none"
    succeed(*arguments(data, out, model=model, **federation))
    for name in ("prior.safetensors", "prior.json"):
        (tmp_path / name).symlink_to(data / name)
    assert said in refuse(*invert_arguments(out, "site-1", tmp_path / "out", attack=STATISTICS_ALONE))
    succeed(*invert_arguments(out, "site-1", tmp_path / "out", attack=WITHOUT_STATISTICS))
    rebuilt = [tmp_path / f"out/round{number}/site-1/test.safetensors" for number in (1, 2)]
    pairs = [option for path in rebuilt for option in ("--reconstruction", path)]
    succeed("score", "--images", data / "images.safetensors", "--split", data / "split.json", *pairs,
            "--scoring", "{}", "--out", tmp_path / "score.csv")  # fmt: skip
    scores = pd.read_csv(tmp_path / "score.csv")
    assert len(scores) == 2 * 4
    assert scores.ssim.notna().all()
    curve = [value for _, value in json.loads((tmp_path / "out/site-1.json").read_text())["curves"]["round2/objective"]]
    assert min(curve) < 0.9 * curve[0], "the attack explains more of the update than its start did"


def test_a_federation_starts_from_what_was_trained_on_public_images(data: Path, tmp_path: Path) -> None:
    public = {"weights": "public", "pretraining": {"epochs": 4, "batch_size": 5}}
    made = tmp_path / "pretrained.safetensors"
    succeed(*pretrain(data, made, public))
    record = json.loads((tmp_path / "record.json").read_text())
    losses = [loss for _, loss in record["curves"]["loss"]]
    assert len(losses) == 4
    assert losses[-1] < losses[0]
    assert 0 <= record["metrics"]["validation_accuracy"] <= 1
    succeed(*pretrain(data, tmp_path / "again.safetensors", public))
    assert (tmp_path / "again.safetensors").read_bytes() == made.read_bytes()

    succeed(*arguments(data, tmp_path / "none", "--initial", made, model=public))
    sent = read_arrays(tmp_path / "none/round1/global.safetensors", "leakpipe/model")[0]
    for name, value in read_arrays(made, "leakpipe/model")[0].items():
        np.testing.assert_array_equal(sent[name], value)
    # The same file may start another experiment, by its path.
    succeed(*arguments(data, tmp_path / "path", model={"weights": str(made)}))
    again = read_arrays(tmp_path / "path/round1/global.safetensors", "leakpipe/model")[0]
    assert all(np.array_equal(again[name], sent[name]) for name in sent)

    assert "--initial goes with weights: public" in leakpipe(*arguments(data, tmp_path / "x", model=public)).output
    wider = arguments(data, tmp_path / "x", "--initial", made, model={**public, "widths": [5, 6]})
    assert "tensor 'features.0.weight' has shape (4, 3, 3, 3), expected (5, 3, 3, 3)" in refuse(*wider)
    missing = arguments(data, tmp_path / "x", model={"weights": "nowhere.pth"})
    assert refuse(*missing) == "Error: model.weights: nowhere.pth: cannot be read: No such file or directory"
