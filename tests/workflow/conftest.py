"""A copy of the project in which Snakemake can run, and what a dry run says would be done."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import PROJECT

PARTS = ("params.yaml", "profiles", "workflow", "src", "experiments", "pyproject.toml", "CITATION.cff")
QUICK = ("--configfile", "params.yaml", "experiments/quick.yaml")
TINY = PROJECT / "tests" / "drills" / "tiny.yaml"
STRANGE = "o'br {v} o?k h#y%41*[1] $x e\u0301 \u00e9"  # the name of a folder
NOTEBOOK = "module://matplotlib_inline.backend_inline"


def environment(project: Path) -> dict[str, str]:
    """Make the copy's own sources win over the installed ones, and keep MLflow inside the copy."""
    return {
        **os.environ,
        "PYTHONPATH": str(project / "src"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{project / 'mlflow.db'}",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


def snakemake(project: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments],
        cwd=project,
        env=environment(project) | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def copy_project(target: Path) -> Path:
    target.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        source = PROJECT / part
        if source.is_dir():
            shutil.copytree(source, target / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target / part)
    return target


def copy_checkout(target: Path) -> Path:
    """All files that git knows of or would add, but for recorded results and their lock file."""
    wanted = ("--cached", "--others", "--exclude-standard", "--", ":(exclude,glob)results/*/**", ":!dvc.lock")
    listed = subprocess.check_output(["git", "ls-files", "-z", *wanted], cwd=PROJECT, text=True)
    for name in listed.split("\0"):
        if name and (PROJECT / name).is_file():  # some may have been deleted
            place = target / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, place, follow_symlinks=False)
    return target


def kind_of(rule: str) -> str:
    """Returns the part of a rule's name that stands before the job which it is made for."""
    kinds = ("split_data", "federate", "invert", "score", "identify")
    return next((kind for kind in kinds if rule.startswith(f"{kind}_")), rule)


def planned_jobs(project: Path, *arguments: str) -> Counter[str]:
    """Jobs by kind of rule that a run would do now, target rules left out."""
    done = snakemake(project, "-n", *(arguments or QUICK), LEAKPIPE_DATA="absent")
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    table = dict(re.findall(r"^([\w-]+)\s+(\d+)$", said, flags=re.MULTILINE))  # it is printed twice
    counts: Counter[str] = Counter()
    for rule, count in table.items():
        if rule not in {"all", "total"}:
            counts[kind_of(rule)] += int(count)
    return counts


def run_ids(project: Path, experiment: str = "quick") -> dict[str, str]:
    """Returns which execution made what: the id of every run record, by its path."""
    records = project / "results" / experiment / "records"
    return {
        str(path.relative_to(records)): json.loads(path.read_text())["id"] for path in sorted(records.rglob("*.json"))
    }


def result_bytes(project: Path, experiment: str = "quick") -> dict[str, bytes]:
    """Bytes of all that must be the same in every run: tensors, sidecars, scores, accuracy, headline numbers."""
    results = project / "results" / experiment
    paths = [
        path
        for path in sorted(results.rglob("*"))
        if path.suffix in {".safetensors", ".json", ".csv"}
        and "records" not in path.parts
        and path.name not in {"leakage.csv", "tracked.json", "ro-crate-metadata.json"}
    ]
    return {str(path.relative_to(results)): path.read_bytes() for path in paths}


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which the quick experiment has run to its end; tests copy it before they change it."""
    project = copy_project(tmp_path_factory.mktemp("workflow") / "project")
    done = snakemake(project, "--cores", "2", *QUICK)
    assert done.returncode == 0, done.stdout + done.stderr
    return project


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A strangely named folder in which the tiny experiment has run to its end, started from a notebook."""
    project = copy_project(tmp_path_factory.mktemp("tiny") / STRANGE)
    started = {"MPLBACKEND": NOTEBOOK, "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}
    done = snakemake(project, "--cores", "1", "--configfile", str(project / "params.yaml"), str(TINY), **started)
    assert done.returncode == 0, done.stdout + done.stderr
    return project


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished project (same times, so that nothing looks newer than it is)."""
    return Path(shutil.copytree(finished, tmp_path / "project", copy_function=shutil.copy2, symlinks=True))


Edit = Callable[[str, str, str], None]


@pytest.fixture
def edit(project: Path) -> Edit:
    """Replace text in a file of the project."""

    def replace(file: str, old: str, new: str) -> None:
        path = project / file
        text = path.read_text()
        assert old in text, f"{old!r} is not in {file}"
        path.write_text(text.replace(old, new))

    return replace
