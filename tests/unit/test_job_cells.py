"""One job, many cells: each is finished by itself, and what is finished is neither computed nor recorded again."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from leakpipe.cli.cells import KEPT, Cell
from leakpipe.cli.main import main
from leakpipe.data.files import save_dataset
from leakpipe.data.images import LabeledImages

CLIENTS = {"site-9": {"images": 2, "batch_size": 1}}
DATA = {"dataset": "lfw-faces", "image_size": 16, "test": 4, "validation": 2, "public": 4}


@pytest.fixture(autouse=True)
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny data set, in a working folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    save(0)


def save(seed: int) -> None:
    pixels = np.random.default_rng(seed).random((20, 1, 16, 16), np.float32)
    labels = np.arange(20, dtype=np.int64) % 2
    save_dataset(Path("images.safetensors"), LabeledImages(pixels, labels, ("clear", "face")))


def split(*seeds: int, code: int = 0, public: int = 4) -> str:
    done = CliRunner().invoke(
        main,
        [
            *("split-data", "--data-params", json.dumps({**DATA, "public": public}), "--clients", json.dumps(CLIENTS)),
            *("--images", "images.safetensors", "--split", "seed{seed}/split.json"),
            *("--prior", "seed{seed}/prior.safetensors", "--record", "records/seed{seed}.json"),
            *("--label", "experiment=e", *(part for seed in seeds for part in ("--each", f"seed={seed}"))),
        ],
    )
    assert done.exit_code == code, done.output
    return done.output


def ids() -> dict[str, str]:
    return {path.stem: json.loads(path.read_text())["id"] for path in sorted(Path("records").glob("*.json"))}


def test_a_cell_is_computed_once() -> None:
    split(1, 2)
    before = ids()
    assert before.keys() == {"seed1", "seed2"}
    split(1, 2, 3)
    assert {name: made for name, made in ids().items() if name != "seed3"} == before
    assert not any(KEPT.glob("*")), "what all cells of a finished job left is not kept twice"


@pytest.mark.parametrize("change", ["output", "input", "settings", "record"])
def test_a_cell_that_something_changed_for_is_computed_again(change: str) -> None:
    split(1, 2)
    before = ids()
    if change == "output":
        Path("seed2/prior.json").write_text("{}")
    if change == "record":
        Path("records/seed2.json").write_text('{"details": []}')
    if change == "input":
        save(1)
    split(1, 2, public=5 if change == "settings" else 4)
    changed = {name for name, made in ids().items() if before[name] != made}
    assert changed == ({"seed2"} if change in ("output", "record") else {"seed1", "seed2"})


def test_finished_cells_outlive_a_job_that_fails_and_whose_files_are_deleted() -> None:
    Path("seed2/split.json").mkdir(parents=True)  # where a file is to be
    said = split(1, 2, 3, code=1)
    assert "seed2/split.json: cannot be written" in said
    assert "1 of 3 cells failed" in said
    before = ids()
    assert before.keys() == {"seed1", "seed3"}, "a cell that fails must not stop the others"
    content = Path("seed1/split.json").read_bytes()
    for name in ("seed1", "seed2", "seed3", "records"):
        shutil.rmtree(name)
    split(1, 2, 3)
    assert {name: made for name, made in ids().items() if name != "seed2"} == before
    assert Path("seed1/split.json").read_bytes() == content
    assert not any(KEPT.glob("*"))


def test_kept_files_that_changed_are_not_used() -> None:
    Path("seed2/split.json").mkdir(parents=True)
    split(1, 2, code=1)
    before = ids()
    for name in ("seed1", "seed2", "records"):
        shutil.rmtree(name)
    next(KEPT.rglob("prior.json")).write_text("{}")
    split(1, 2)
    assert ids()["seed1"] != before["seed1"]


def test_the_command_of_a_record_makes_its_cell_alone() -> None:
    split(1, 2)
    record = json.loads(Path("records/seed2.json").read_text())
    made = {name: Path(name).read_bytes() for name in record["outputs"]}
    for name in ("seed1", "seed2"):
        shutil.rmtree(name)
    done = CliRunner().invoke(main, record["command"])
    assert done.exit_code == 0, done.output
    assert {name: Path(name).read_bytes() for name in made} == made
    assert not Path("seed1").exists()
    assert record["labels"] == {"experiment": "e", "seed": "2"}


def test_only_the_cells_own_names_are_replaced() -> None:
    cell = Cell({"seed": "2"}, {})
    assert cell.fill("{seed}/{client}/{'seed'}") == "2/{client}/{'seed'}"
    assert cell.command(["invert", "--each", "seed=1", "--each=seed=2", "--out", "{seed}.x"]) == [
        *("invert", "--out", "2.x", "--label", "seed=2")
    ]


@pytest.mark.parametrize("each", ["seed", "seed=1,client", "=1"])
def test_a_cell_that_cannot_be_read(each: str) -> None:
    done = CliRunner().invoke(main, ["split-data", "--each", each])
    assert done.exit_code == 2
    assert "expected KEY=VALUE" in done.output
