"""Experiments on data sets from disk: they can be planned without the data, and lists are inputs."""

import json
import re
from pathlib import Path

import pytest

from tests.unit.data_files import write_folder
from tests.workflow.conftest import copy_project, planned_jobs, snakemake

PAPER = ("--configfile", "params.yaml", "experiments/paper.yaml")
IMAGES = "results/paper/data/images.safetensors"


@pytest.fixture
def untouched(tmp_path: Path) -> Path:
    """A copy of the project in which nothing has run."""
    return copy_project(tmp_path / "project")


def test_the_papers_experiment_is_planned_without_its_data(untouched: Path) -> None:
    jobs = planned_jobs(untouched, *PAPER)
    assert (jobs["federate"], jobs["invert"]) == (11, 57), "cells that take hours have a job each"
    done = snakemake(untouched, "-n", *PAPER, LEAKPIPE_DATA="absent")
    needed = re.findall(r"rule prepare_data:.*?mem_mb=(\d+)", done.stdout + done.stderr, flags=re.DOTALL)
    assert needed == [str(1000 + 3 * 4 * 4600 * 224**2 // 1_000_000)]


def test_without_its_data_it_stops_at_once_and_says_how_to_get_them(untouched: Path) -> None:
    (untouched / "weights").mkdir()
    for file in ("resnet18-f37072fd.pth", "resnet50-0676ba61.pth"):  # looked for before anything runs
        (untouched / "weights" / file).touch()
    done = snakemake(untouched, IMAGES, "--cores", "1", *PAPER, LEAKPIPE_WEIGHTS="weights", LEAKPIPE_DATA="absent")
    assert done.returncode == 1
    log = (untouched / "logs" / "paper" / "prepare_data.log").read_text()
    assert log.startswith("Error: absent/COVID-19_Radiography_Dataset: the folder of data set 'covid-radiography' is m")
    assert "leakpipe fetch covid-radiography" in log


LISTS: dict[str, object] = {  # what of params.yaml needs more than two images a client is switched off
    "experiment": "lists",
    "seeds": [1],
    "data": {
        **{"dataset": "image-folder", "root": "xrays", "datalists": "lists", "image_size": 32},
        **{"test": 2, "validation": 0, "public": 4},
    },
    "federation": {
        "clients": {
            **dict.fromkeys(("site-9", "site-5", "site-2", "site-6")),
            "site-1": {"images": 2, "batch_size": 2, "classes": None},
        }
    },
    "attacks": {
        **dict.fromkeys(
            ("leakpipe-adapted", "leakpipe-weights", "leakpipe-statistics", "bn-aware", "inverting-gradients")
        ),
        "leakpipe": {"targets": {"site-9": None, "site-5": None, "site-1": {"seeds": None}}},
    },
    "claims": None,
    "figures": ["reconstructions"],
}


def write_list(path: Path, *, training: list[str], testing: list[str]) -> None:
    parts = {"training": training, "testing": testing}
    content = {
        part: [{"image": f"{name.split('-')[0]}/{name}.png", "label": [int("opacity" in name)]} for name in names]
        for part, names in parts.items()
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


def test_a_changed_list_splits_again(untouched: Path) -> None:
    write_folder(untouched / "xrays", {"clear": 9, "opacity": 9})
    (untouched / "lists.yaml").write_text(json.dumps(LISTS))

    def clients_of_split() -> dict[str, list[int]]:
        split = "results/lists/data/seed1/split.json"
        done = snakemake(untouched, split, "--cores", "1", "--configfile", "params.yaml", "lists.yaml")
        assert done.returncode == 0, done.stdout + done.stderr
        clients: dict[str, list[int]] = json.loads((untouched / split).read_text())["clients"]
        return clients

    for first in (1, 2):  # places in the data set: nine of class clear, then those of class opacity
        training = [f"clear-{first}", "opacity-1"]
        write_list(untouched / "lists" / "site-1.json", training=training, testing=["clear-3", "opacity-3"])
        assert clients_of_split() == {"site-1": [first - 1, 9]}
