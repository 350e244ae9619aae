"""kill -9 in the middle of a run, then the same command: it finishes, with the same bytes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.workflow.conftest import TINY, copy_project, environment, result_bytes, snakemake

WANTED = ("--configfile", "params.yaml", str(TINY))


def run_until_killed(project: Path) -> None:
    """Start a run and kill -9 its whole process group as soon as the first attack has written a file."""
    running = subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--cores", "2", *WANTED],
        cwd=project,
        env=environment(project),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    while not list(project.glob("results/tiny/inversion/**/*.safetensors")):
        assert running.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "the first attack took too long"
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()


def test_a_killed_run_finishes_with_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    project = copy_project(tmp_path / "killed")
    run_until_killed(project)
    assert not (project / "results" / "tiny" / "leakage.csv").exists()
    snakemake(project, "--unlock", *WANTED)
    done = snakemake(project, "--cores", "2", *WANTED)
    assert done.returncode == 0, done.stderr
    ours, undisturbed = (result_bytes(each, "tiny") for each in (project, tiny))
    assert ours.keys() == undisturbed.keys()
    assert [name for name in ours if ours[name] != undisturbed[name]] == []
    assert not list(project.glob("results/**/*.part"))
