"""Snakemake's re-runs after a change: exactly what depends on it."""

import hashlib
import json
from pathlib import Path

import pandas as pd
import pytest

from leakpipe.experiment.reading import load_params
from leakpipe.experiment.workload import estimate
from tests.workflow.conftest import QUICK, Edit, copy_project, planned_jobs, run_ids, snakemake

FIGURES = ("overview", "reconstructions", "maps", "rounds", "noise", "clients", "identifiability", "tradeoff")
DRAWN = {"plot": 1, "report": 1, "crate": 1, "track": 1}
AFTER_COLLECT = {"collect": 1, "judge": 1, **DRAWN}
ONE_ATTACK = {"invert": 1, "score": 1, "identify": 1, **AFTER_COLLECT}

FROZEN = "inverting-gradients:\n    iterations: 20"
# What is edited, as (file, old text, new text), and the jobs that are planned then.
EDITS: dict[str, tuple[list[tuple[str, str, str]], dict[str, int]]] = {
    "nothing": ([], {}),
    "comments": (
        [
            ("src/leakpipe/attacks/terms/images.py", "    axes = ", "    # a comment\n    axes = "),
            ("params.yaml", "federation:", "# a comment\nfederation:"),
        ],
        {},
    ),
    "what only records or shows": (
        [
            ("src/leakpipe/records/run_record.py", "\nPACKAGES = (", "\nEDITED = True\nPACKAGES = ("),
            ("src/leakpipe/files/log.py", "\n@dataclass\n", "\nEDITED = True\n\n\n@dataclass\n"),
            ("src/leakpipe/cli/terminal.py", "\ndef progress_bar", "\nEDITED = True\n\n\ndef progress_bar"),
        ],
        {},
    ),
    "code of attacks": (
        [("src/leakpipe/attacks/terms/images.py", "return sum(means[1:]", "return 1.01 * sum(means[1:]")],
        {"invert": 5, "score": 2, "identify": 2, **AFTER_COLLECT},
    ),
    "code of clients": (
        [("src/leakpipe/client/local_update.py", "learning_rate * gradient", "learning_rate * 2 * gradient")],
        {"federate": 2, "invert": 5, "score": 2, "identify": 2, **AFTER_COLLECT},
    ),
    "code of embedders": (
        [("src/leakpipe/metrics/embedders.py", "BATCH = 32", "BATCH = 16")],
        {"identify": 2, **AFTER_COLLECT},
    ),
    "iterations of one attack": ([("experiments/quick.yaml", FROZEN, FROZEN.replace("20", "21"))], ONE_ATTACK),
    "what one attacker knows": (
        [("experiments/quick.yaml", FROZEN, f"{FROZEN}\n    threat_model: {{prior: class}}")],
        ONE_ATTACK,
    ),
    "assignment": (
        [("params.yaml", "assignment: optimal", "assignment: per-image-maximum")],
        {"score": 2, "identify": 2, **AFTER_COLLECT},
    ),
    "a role in the claims": (
        [("params.yaml", "low_risk: [site-5, site-1]", "low_risk: [site-1]")],
        {"judge": 1, **DRAWN},  # the same job makes the tables that figures are drawn from
    ),
    "code of one figure": (
        [("src/leakpipe/figures/rounds.py", "import annotations\n", "import annotations\n\nEDITED = True\n")],
        DRAWN,
    ),
    "no embedders": (
        [
            ("params.yaml", "embedders: [pixels, global-model]", "embedders: []"),
            ("params.yaml", "clients, identifiability, tradeoff", "clients, tradeoff"),
        ],
        AFTER_COLLECT,
    ),
    "one defence more": (
        [("experiments/quick.yaml", "  gaussian-5: null\n", "")],
        {"federate": 1, "invert": 2, "score": 1, "identify": 1, **AFTER_COLLECT},
    ),
}


@pytest.mark.parametrize("edited", EDITS)
def test_an_edit_runs_what_depends_on_it(edited: str, project: Path, edit: Edit) -> None:
    changes, planned = EDITS[edited]
    for change in changes:
        edit(*change)
    assert planned_jobs(project) == planned


def test_a_touch(project: Path) -> None:
    for path in (*(project / "src").rglob("*.py"), project / "params.yaml"):
        path.touch()
    assert planned_jobs(project) == {}


def test_cells_that_are_finished_are_neither_computed_nor_recorded_again(project: Path, edit: Edit) -> None:
    """Jobs that gain a cell run again, and their other cells' files and records stay as they are."""
    before = run_ids(project)
    bytes_before = {path: path.read_bytes() for path in (project / "results/quick/inversion").rglob("*.*")}
    edit("experiments/quick.yaml", "seeds: [1]", "seeds: [1, 2]")
    done = snakemake(project, "inversion", "--cores", "2", *QUICK)
    assert done.returncode == 0, done.stdout + done.stderr
    after = run_ids(project)
    added = {name for name in after if "seed2" in name and name.split("/")[0] in ("split_data", "federate", "invert")}
    assert len(added) == 1 + 2 + 5
    assert {name for name in after if after[name] != before.get(name)} == added
    assert {path: path.read_bytes() for path in bytes_before} == bytes_before
    assert not (project / ".leakpipe/kept").exists() or not any((project / ".leakpipe/kept").iterdir())
    assert planned_jobs(project, "inversion", *QUICK) == {}


def test_everything_is_there_after_a_run(finished: Path) -> None:
    results = finished / "results" / "quick"
    table = pd.read_csv(results / "leakage.csv")
    assert len(table) == 2 * (2 + 16 + 1)  # 2 rounds x (site-9 x 2 defences, 8 images x 2 defences, frozen belief)
    assert len(pd.read_csv(results / "identifiability.csv")) == 2 * len(table), "a row for each of two embedders"
    for name in FIGURES:
        assert (results / "figures" / f"{name}.svg").stat().st_size > 1000
        assert (results / "figures" / f"{name}.png").stat().st_size > 1000
    assert "http" not in "".join(
        line for line in (results / "report.html").read_text().splitlines() if "src=" in line or "<link" in line
    )
    assert json.loads((results / "tracked.json").read_text())["reached"] is True


def test_the_crate_lists_every_file_with_its_digest(finished: Path) -> None:
    results = finished / "results" / "quick"
    graph = json.loads((results / "ro-crate-metadata.json").read_text())["@graph"]
    listed = {entity["@id"]: entity["sha256"] for entity in graph if "File" in entity["@type"]}
    there = {str(path.relative_to(results)): path for path in results.rglob("*") if path.is_file()}
    made_later = {"ro-crate-metadata.json", "tracked.json"}
    assert listed == {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in there.items() if name not in made_later
    }


@pytest.mark.parametrize(
    ("old", "new", "arguments", "said"),
    [
        ("learning_rate: 0.01", "learning_rat: 0.01", ("-n",), "federation.learning_rat: unknown key"),
        (
            "embedders: [pixels, global-model]",
            "embedders: [imagenet-resnet50]",
            ("--cores", "1"),
            "the weights of 'imagenet-resnet50' are not on this machine",
        ),
        ("lpips: false", "lpips: true", ("--cores", "1"), "scoring.lpips: the weights of 'imagenet-alexnet' are not"),
    ],
)
def test_what_cannot_run_is_said_before_anything_runs(
    old: str, new: str, arguments: tuple[str, ...], said: str, project: Path, edit: Edit
) -> None:
    edit("params.yaml", old, new)
    done = snakemake(project, *arguments, *QUICK, TORCH_HOME=str(project / "empty"), LEAKPIPE_WEIGHTS="")
    assert done.returncode == 1
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_the_report_of_snakemake_can_be_drawn(project: Path) -> None:
    done = snakemake(project, "--report", "report.html", *QUICK)
    assert done.returncode == 0, done.stderr
    page = (project / "report.html").read_text()
    assert "RDLV" in page
    assert "What the attack rebuilds" in page
    for table in ("Leakage of every image", "Accuracy after every round", "Paired differences", "Privacy budgets"):
        assert f'{{"table": "{table}"}}' in page


def test_what_is_set_for_a_kind_of_job_counts_for_every_job_of_it(project: Path) -> None:
    done = snakemake(project, "-n", "--forceall", "--set-resources", "invert:mem_mb=1500 * attempt", *QUICK)
    assert (done.stdout + done.stderr).count(", mem_mb=1500,") == 5


def test_the_device_is_a_resource_that_reaches_the_command_and_runs_nothing_again(project: Path) -> None:
    device = ("--set-resources", "invert:device=cuda", "federate:device=auto")
    assert planned_jobs(project, *QUICK, *device) == {}
    done = snakemake(project, "-n", "-p", "--forceall", *QUICK, *device)
    assert (done.stdout + done.stderr).count("--device cuda") == 5
    assert (done.stdout + done.stderr).count("--device auto") == 2


def test_the_scheduler_wakes_when_a_job_ends_and_not_otherwise(project: Path) -> None:
    done = snakemake(project, "--cores", "2", "--verbose", "--forcerun", "judge", "--until", "plot", *QUICK)
    assert done.returncode == 0, done.stderr
    ended = done.stderr.count("Finished jobid")
    assert ended == 2
    assert done.stderr.count("Ready jobs: ") <= ended + 1


def test_as_many_jobs_are_planned_from_nothing_as_check_says(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    assert planned_jobs(project, "--quiet", "rules").total() == estimate(load_params(project / "params.yaml")).jobs
