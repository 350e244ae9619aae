"""The pipeline in folders of any name, from a Snakefile that lies elsewhere, with users' text in every language."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import PROJECT
from tests.unit.attacking import observe, random_images, small_model
from tests.unit.data_files import noise, write_folder, write_image
from tests.workflow.conftest import STRANGE, TINY, copy_project, environment, snakemake
from tests.workflow.test_data_sets import LISTS, write_list


def test_a_run_in_a_strangely_named_folder_started_from_a_notebook(tiny: Path) -> None:
    tracked = json.loads((tiny / "results/tiny/tracked.json").read_text())
    assert (tracked["reached"], tracked["notes"]) == (True, [])
    assert [path.name for path in tiny.parent.iterdir()] == [STRANGE], "nothing lies outside"


def test_an_audit_in_a_strangely_named_folder_of_strangely_named_files(tmp_path: Path) -> None:
    folder, start = tmp_path / STRANGE, STRANGE.replace("{v} ", "")
    folder.mkdir()
    seen = observe(small_model(size=16), random_images(1, size=16, dtype=torch.float32), [1])
    before = {**seen.before.weights, **seen.before.statistics}
    changes = {**seen.update.weights, **seen.update.statistics}
    for name, tensors in {"before": before, "change": changes}.items():
        torch.save(tensors, folder / f"{start}{name}.pth")
    write_image(folder / f"{start}people" / f"{start}.png", noise(16, 16))
    content = {
        "audit": "x",
        "updates": {"1": {name: f"{start}{name}.pth" for name in ("before", "change")}},
        "network": {"architecture": {"name": "convnet-bn", "widths": [3, 4], "strides": [2, 2]}, "classes": 3},
        "images": {"size": 16},
        "training": {"learning_rate": 0.05},
        **{"public": f"{start}people", "minutes": 0.01, "what_if": []},
    }
    (folder / "audit.yaml").write_text(json.dumps(content))
    done = subprocess.run(
        [sys.executable, "-m", "leakpipe", "audit", "--cores", "1"],
        cwd=folder, env=environment(PROJECT) | {"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((folder / "results/audit/x/tracked.json").read_text())["reached"]
    assert (folder / "results/audit/x/report.html").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [STRANGE], "nothing lies outside"


def test_several_people_share_a_snakefile_that_they_cannot_write(tmp_path: Path) -> None:
    shared, own = copy_project(tmp_path / "sha {re}d"), tmp_path / "own"
    own.mkdir()
    for folder, _, files in os.walk(shared, topdown=False):
        for name in files:
            Path(folder, name).chmod(0o444)
        Path(folder).chmod(0o555)
    before = sorted(path for path in shared.rglob("*") if "__pycache__" not in path.parts)
    snakefile = shared / "workflow" / "Snakefile"
    call = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), "--configfile", str(TINY)]
    variables = environment(shared) | {"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}
    done = subprocess.run([*call, "--cores", "1"], cwd=own, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (own / "results/tiny/report.html").is_file()
    assert sorted(path for path in shared.rglob("*") if "__pycache__" not in path.parts) == before
    verify = [sys.executable, "-m", "leakpipe", "verify", "results/tiny", "--cells", "0"]
    checked = subprocess.run(verify, cwd=own, env=variables, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    (own / "params.yaml").write_text((PROJECT / "params.yaml").read_text() + "unknown: 1\n")
    said = subprocess.run([*call, "-n"], cwd=own, env=variables, capture_output=True, text=True, check=False)
    assert "params.yaml: unknown: unknown key" in said.stdout + said.stderr, "one's own parameters count"


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    """A project on a data set, with wildcards of Snakemake's in all text that a user may choose."""
    project = copy_project(tmp_path / "project")
    write_folder(project / "x {v2}", {"clear {v2}": 4, "opacity": 4})
    write_list(project / "lists" / "site-1.json", training=["opacity-1"], testing=[])
    content = json.loads(json.dumps(LISTS))
    content["data"] |= {"root": "x {v2}", "datalists": None, "test": 2, "public": 2}
    content["federation"]["clients"]["site-1"] |= {"classes": ["clear {v2}", "opacity"]}
    content["attacks"]["second"] = content["attacks"]["leakpipe"] | {"preset": "bn-cosine", "iterations": 2}
    content["comparisons"] = {
        "one": {"title": "a {title}", "attacks": {"leakpipe": "with {w}", "second": "without"}, "clients": ["site-1"]}
    }
    content["figures"] = ["reconstructions", "effects"]
    (project / "lists.yaml").write_text(json.dumps(content))
    return project


def test_braces_in_names_and_titles_are_text(lists: Path) -> None:
    wanted = ("--configfile", "params.yaml", "lists.yaml")
    planned = snakemake(lists, "-n", *wanted)
    assert planned.returncode == 0, planned.stdout + planned.stderr
    done = snakemake(lists, "results/lists/data/seed1/split.json", "--cores", "1", *wanted)
    assert done.returncode == 0, done.stdout + done.stderr
    images = json.loads((lists / "results/lists/data/images.json").read_text())
    assert "clear {v2}" in json.dumps(images)


@pytest.mark.parametrize(("section", "field"), [("data", "datalists"), ("model", "weights")])
def test_an_input_file_with_braces_is_refused_in_one_sentence(lists: Path, section: str, field: str) -> None:
    (lists / "braces.yaml").write_text(json.dumps({section: {field: "a {v2}.pth"}}))
    files = ("params.yaml", "lists.yaml", "braces.yaml")
    check = subprocess.run(
        [sys.executable, "-m", "leakpipe", "check", *files],
        cwd=lists, env=environment(lists), capture_output=True, text=True, check=False,
    )  # fmt: skip
    planned = snakemake(lists, "-n", "--configfile", *files)
    for done in (check, planned):
        assert done.returncode == 1
        said = done.stdout + done.stderr
        assert f"{section}.{field}: 'a {{v2}}.pth' has braces, which Snakemake takes for wildcards" in said


def test_the_check_and_the_rules_read_the_same_numbers(lists: Path) -> None:
    (lists / "rate.yaml").write_text("federation: {learning_rate: 1e-3}\n")
    planned = snakemake(lists, "-n", "-p", "--configfile", "params.yaml", "rate.yaml")
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert '"learning_rate": 0.001' in planned.stdout + planned.stderr


def test_a_jobs_shell_finds_leakpipe_in_an_environment_of_any_name(tmp_path: Path) -> None:
    project, binaries = copy_project(tmp_path / "project"), tmp_path / "o'brien e{n}v" / "bin"
    binaries.mkdir(parents=True)
    python = binaries / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    leakpipe = binaries / "leakpipe"
    leakpipe.write_text("#!/bin/sh\necho from the strange place >&2\nexit 3\n")
    for file in (python, leakpipe):
        file.chmod(0o755)
    start = f"import sys; sys.executable = {str(python)!r}; from snakemake.cli import main; main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", start, "prepare_data", "--cores", "1"],
        cwd=project, env=environment(project), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "from the strange place" in (project / "logs/default/prepare_data.log").read_text(), done.stderr


def test_a_home_that_cannot_be_written_is_answered_with_the_variable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = subprocess.run(
        [sys.executable, "-m", "leakpipe", "check", "params.yaml"],
        cwd=PROJECT, env=environment(PROJECT) | {"HOME": str(tmp_path / "file"), "XDG_CACHE_HOME": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {tmp_path}/file/.cache/snakemake: Not a directory")
    assert "set the environment variable XDG_CACHE_HOME" in done.stderr
