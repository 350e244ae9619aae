"""`dvc repro` around Snakemake, for real, in copies of a tiny project: nothing old is ever recorded as new."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from leakpipe.attacks.budgets import RECORD
from leakpipe.attacks.files import load_reconstruction
from leakpipe.cli.stage import PIPELINE, list_outputs
from leakpipe.records.stages import read_stages
from tests.conftest import PROJECT
from tests.workflow.conftest import copy_checkout, run_ids

pytest.importorskip("dvc")
RESULTS = Path("results/default")
LEAKPIPE = RESULTS / "inversion/none/seed0/round2/site-9/leakpipe.safetensors"
OTHER = LEAKPIPE.with_name("inverting-gradients.safetensors")
STAGES = ["data", "federation", "inversion", "evaluation"]


def run(project: Path, *command: str) -> str:
    """Run a command on the project's own code; returns what it printed."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("SNAKEMAKE", "GIT_", "LEAKPIPE"))},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(project / "src"),
        "DVC_NO_ANALYTICS": "1",
        "LEAKPIPE_CORES": "2",
        "MLFLOW_TRACKING_URI": f"sqlite:///{project / 'mlflow.db'}",
    }
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def tiny(params: dict[str, Any]) -> dict[str, Any]:
    """The default experiment, cut to one seed, two defences, two attacks on one client, three iterations."""
    params["seeds"] = [0]
    params["federation"] |= {"rounds": 2, "captured_rounds": [1, 2]}
    params["defenses"] = {name: params["defenses"][name] for name in ("none", "gaussian-1")}
    params["attacks"] = {name: params["attacks"][name] for name in ("leakpipe", "inverting-gradients")}
    params["claims"] = None
    for attack in params["attacks"].values():
        attack |= {"iterations": 3, "targets": {"site-9": {"defenses": ["none"]}}}
    params["attacks"]["leakpipe"]["targets"] = {"site-9": {}}
    return params


def edit_params(project: Path, edit: Any) -> None:
    path = project / "params.yaml"
    content = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(edit(content) or content, sort_keys=False))


def commit(project: Path) -> None:
    run(project, "git", "add", "--all")
    run(project, "git", "-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "-qm", "state")


def ran_again(project: Path, before: dict[str, str]) -> set[str]:
    after = run_ids(project, "default")
    return {path for path in after if after[path] != before.get(path)}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose results were made by plain Snakemake, then taken over by DVC and pushed."""
    project = copy_checkout(tmp_path_factory.mktemp("dvc") / "project")
    edit_params(project, tiny)
    run(project, "git", "init", "-q")
    run(project, "dvc", "remote", "add", "-q", "--default", "local", str(project.with_name("remote")))
    run(project, "snakemake", "--quiet", "all", "--cores", "2", "evaluation")
    made = run_ids(project, "default")
    run(project, "dvc", "repro")
    assert ran_again(project, made) == set(), "dvc repro after snakemake must take over, not run again"
    commit(project)
    run(project, "dvc", "push", "-q")
    return project


@pytest.fixture
def project(prepared: Path, tmp_path: Path) -> Path:
    """A working copy of the prepared project, to spoil."""
    return Path(shutil.copytree(prepared, tmp_path / "copy", symlinks=True))


@pytest.fixture
def clone(prepared: Path, tmp_path: Path) -> Path:
    """A fresh clone with pulled results: no `.snakemake`."""
    clone = tmp_path / "clone"
    run(prepared, "git", "clone", "-q", str(prepared), str(clone))
    run(clone, "dvc", "pull", "-q")
    return clone


def test_unchanged_project_is_a_no_op_and_git_sees_only_metrics(prepared: Path) -> None:
    output = run(prepared, "dvc", "repro")
    assert re.findall(r"Stage '(\w+)' didn't change, skipping", output) == STAGES
    assert run(prepared, "git", "status", "--porcelain") == ""
    in_git = run(prepared, "git", "ls-files", "results").split()
    metrics = ["results/default/headline.json", "results/default/metrics.json"]
    assert in_git == ["results/.gitignore", *metrics, "results/recorded.json"]


def test_fresh_clone_runs_nothing(prepared: Path, clone: Path) -> None:
    assert "Running stage" not in run(clone, "dvc", "repro")
    run(clone, "leakpipe", "stage", "evaluation")  # gives Snakemake its records back
    assert run_ids(clone, "default") == run_ids(prepared, "default")
    assert "Nothing to be done" in run(clone, "snakemake", "--dry-run", "evaluation")
    assert "up to date" in run(clone, "dvc", "status")


def test_times_of_steps_are_followed(clone: Path) -> None:
    (clone / RECORD).write_text('{"a step": 12.5}')
    assert re.findall(r"^(\w+):$", run(clone, "dvc", "status"), flags=re.MULTILINE) == ["inversion"]


def test_touched_old_files_do_not_pass_for_new_ones(clone: Path) -> None:
    before, old, other = run_ids(clone, "default"), (clone / LEAKPIPE).read_bytes(), (clone / OTHER).read_bytes()
    edit_params(clone, lambda params: params["attacks"]["leakpipe"].update(iterations=4))
    run(clone, "snakemake", "--quiet", "all", "--cores", "1", "--touch", "inversion")
    assert "Nothing to be done" in run(clone, "snakemake", "--dry-run", "inversion"), "Snakemake is deceived"

    run(clone, "dvc", "repro", "--single-item", "inversion")

    assert ran_again(clone, before) == {
        "invert/none/seed0/site-9/leakpipe.json",
        "invert/gaussian-1/seed0/site-9/leakpipe.json",
    }
    assert (clone / LEAKPIPE).read_bytes() != old
    assert load_reconstruction(clone / LEAKPIPE).iterations == 4
    assert (clone / OTHER).read_bytes() == other


def test_changed_attack_code_makes_reconstructions_again_and_nothing_before_them(project: Path) -> None:
    before, old = run_ids(project, "default"), load_reconstruction(project / LEAKPIPE).images
    code = project / "src/leakpipe/attacks/files.py"
    code.write_text(
        code.read_text()
        + "\n\n_save = save_reconstruction\n\n\n"
        + "def save_reconstruction(path, images, **others):\n    _save(path, 1 - images, **others)\n"
    )

    run(project, "dvc", "repro", "--single-item", "inversion")

    assert {path.split("/")[0] for path in ran_again(project, before)} == {"invert"}
    assert len(ran_again(project, before)) == 3
    np.testing.assert_array_equal(load_reconstruction(project / LEAKPIPE).images, 1 - old)


def test_every_file_that_rules_make_is_an_out_of_one_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    stages = read_stages(PIPELINE, upto=STAGES[-1], experiment="default")
    assert [stage.name for stage in stages] == STAGES
    made = list_outputs(["evaluation"])
    assert made
    assert {path: sum(stage.holds(path) for stage in stages) for path in made} == dict.fromkeys(made, 1)
    assert [
        out for stage in stages for out in stage.outs if not any(Path(path).is_relative_to(out) for path in made)
    ] == []
    content = yaml.safe_load(PIPELINE.read_text())
    assert {plot.replace("${experiment}", "default") for plot in content["plots"]} <= made
    for stage in content["stages"].values():
        assert stage["params"] == [{"params.yaml": None}]
        assert {"workflow/Snakefile", "workflow/rules", "src/leakpipe"} <= set(stage["deps"])


def test_a_dry_run_lists_the_stages_in_a_fresh_clone(tmp_path: Path) -> None:
    run(PROJECT, "git", "clone", "--quiet", str(PROJECT), str(tmp_path / "clone"))
    said = run(tmp_path / "clone", "dvc", "repro", "--dry", "--force")
    assert re.findall(r"^> leakpipe stage (\w+)$", said, flags=re.MULTILINE) == STAGES
