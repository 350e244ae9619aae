"""Servers that are not there."""

import subprocess
import sys

from tests.drills.stage import SkippedDrillError, Stage, run, succeed
from tests.workflow.conftest import environment

NOBODY = "http://127.0.0.1:9"  # the discard port: nothing listens there
TRACKED = "results/tiny/tracked.json"


def dead_mlflow(stage: Stage) -> None:
    """MLflow does not answer: the run succeeds and says so, and the next one makes up for it."""
    project = stage.copy("dead-mlflow")
    (project / TRACKED).unlink()
    succeed(project, MLFLOW_TRACKING_URI=NOBODY)
    assert '"reached": false' in (project / TRACKED).read_text()
    succeed(project)
    assert '"reached": true' in (project / TRACKED).read_text()
    stage.require_same_bytes(project)


def dead_dvc_remote(stage: Stage) -> None:
    """DVC's remote does not answer: `dvc pull` fails at once, nothing on disk changes, Snakemake works on."""
    project = stage.copy("dead-dvc")
    for command in (
        ("git", "init", "-q"),
        (sys.executable, "-m", "dvc", "init", "-q"),
        (sys.executable, "-m", "dvc", "remote", "add", "-q", "-d", "nobody", f"{NOBODY}/store"),
        (sys.executable, "-m", "dvc", "add", "-q", "results/tiny/leakage.csv"),
    ):
        done = subprocess.run(
            command, cwd=project, env=environment(project), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SkippedDrillError(f"{' '.join(command[-3:])}: {done.stderr.strip().splitlines()[-1:]}")
    cache = project / ".dvc" / "cache"
    cache.rename(project / "lost-cache")
    (project / "results/tiny/leakage.csv").rename(project / "leakage.csv")
    pulled = subprocess.run(
        [sys.executable, "-m", "dvc", "pull"], cwd=project, env=environment(project), capture_output=True, check=False
    )
    assert pulled.returncode != 0, "dvc pull succeeded without its remote"
    (project / "leakage.csv").rename(project / "results/tiny/leakage.csv")
    planned = run(project, "-n")
    assert "Nothing to be done" in planned.stdout + planned.stderr, planned.stdout
    stage.require_same_bytes(project)


DRILLS = (dead_mlflow, dead_dvc_remote)
