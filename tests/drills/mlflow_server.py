"""A real MLflow server on PostgreSQL with eight concurrent writers; paused and restarted during a pass.

`python -m tests.drills.mlflow_server [PROJECT]` takes some minutes. It starts `services/services.sh` in a temporary
folder, so it needs Debian's `postgresql` and `pip install -e '.[postgres]'`. PROJECT is a project in which the quick
experiment has run; without it, the drill runs it first.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from leakpipe.tracking.upload import find_records
from tests.conftest import PROJECT
from tests.workflow.conftest import QUICK, copy_project, environment, snakemake

WRITERS = 8
PORT = 5017
ADDRESS = f"http://127.0.0.1:{PORT}"
RESULTS = Path("results/quick")


@dataclass(frozen=True)
class Server:
    """PostgreSQL and MLflow in a folder of their own."""

    folder: Path

    def order(self, word: str) -> None:
        """Starts or stops them."""
        chosen = {"LEAKPIPE_SERVICES": str(self.folder), "LEAKPIPE_MLFLOW_PORT": str(PORT)}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        subprocess.run(
            [PROJECT / "services/services.sh", word], env={**os.environ, **chosen, "PATH": path}, check=True, stdout=2
        )

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Makes MLflow accept connections without answering."""
        session = int((self.folder / "mlflow.pid").read_text())
        os.killpg(session, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(session, signal.SIGCONT)


def track(project: Path, experiment: str) -> "subprocess.Popen[str]":
    """Starts a pass over all records of the project."""
    command = [sys.executable, "-m", "leakpipe", "track", str(RESULTS / "records"), "--experiment", experiment]
    return subprocess.Popen(
        [*command, "--params", '{"seeds": [1]}', "--metrics", str(RESULTS / "metrics.json"), "--uri", ADDRESS],
        cwd=project,
        env=environment(project) | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> None:
    """Waits for a pass, which must succeed."""
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said


def runs_of(experiment: str) -> list[Any]:
    """Returns all runs of an experiment that are not deleted."""
    client = MlflowClient(ADDRESS)
    found = client.get_experiment_by_name(f"leakpipe/{experiment}")
    return list(client.search_runs([found.experiment_id], max_results=1000)) if found else []


def require_everything_once(project: Path, experiment: str) -> int:
    """Requires one finished run per record below one parent, with all points of the curves; returns their number."""
    client = MlflowClient(ADDRESS)
    records = {record["id"]: record for record in find_records([project / RESULTS / "records"]).values()}
    runs = runs_of(experiment)
    counts = Counter(run.data.tags["leakpipe.key"] for run in runs)
    assert all(count == 1 for count in counts.values()), f"doubled: {counts.most_common(3)}"
    assert {run.info.status for run in runs} == {"FINISHED"}
    jobs = {run.data.tags["leakpipe.key"]: run for run in runs if run.data.tags["leakpipe.kind"] == "job"}
    assert jobs.keys() == records.keys(), "lost, or not ours"
    (parent,) = [run for run in runs if run.data.tags["leakpipe.kind"] == "experiment"]
    points = 0
    for key, run in jobs.items():
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        for name, curve in records[key]["curves"].items():
            history = client.get_metric_history(run.info.run_id, name)
            assert {(point.step, point.value) for point in history} >= {(step, value) for step, value in curve}
            points += len(curve)
    return points


def eight_times_the_same(project: Path, _server: Server) -> str:
    """Eight concurrent writers with the same records."""
    for process in [track(project, "same") for _ in range(WRITERS)]:
        finish(process)
    require_everything_once(project, "same")
    return f"{len(runs_of('same'))} runs"


def slow_in_the_middle(project: Path, server: Server) -> str:
    """A server that pauses during a pass is waited for."""
    process = track(project, "slow")
    wait_for_some_runs("slow")
    with server.frozen():
        time.sleep(10)
    finish(process)
    require_everything_once(project, "slow")
    return "waited for"


def restarted_in_the_middle(project: Path, server: Server) -> str:
    """A pass during which the server stops ends with an error message, and the next one completes it."""
    process = track(project, "restarted")
    wait_for_some_runs("restarted")
    server.order("stop")
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 1, "the server stopped too late to matter"
    assert "nothing is lost" in said, said
    server.order("start")
    there = sum(run.info.status == "FINISHED" for run in runs_of("restarted"))
    finish(track(project, "restarted"))
    require_everything_once(project, "restarted")
    return f"{there} of {len(runs_of('restarted'))} runs were there after the restart, all after the next pass"


def wait_for_some_runs(experiment: str) -> None:
    """Waits until a pass has finished some runs."""
    deadline = time.monotonic() + 120
    while sum(run.info.status == "FINISHED" for run in runs_of(experiment)) < 3:
        assert time.monotonic() < deadline, "nothing is being logged"
        time.sleep(0.1)


DRILLS = (eight_times_the_same, slow_in_the_middle, restarted_in_the_middle)


def main() -> None:
    """Runs all drills and stops at the first failure."""
    parser = argparse.ArgumentParser(prog="python -m tests.drills.mlflow_server", description=__doc__)
    parser.add_argument("project", nargs="?", type=Path, metavar="PROJECT")
    with tempfile.TemporaryDirectory(prefix="leakpipe-mlflow-") as folder:
        Path(folder).chmod(0o755)  # PostgreSQL's user must get to its own folder below
        project = parser.parse_args().project
        if project is None:
            project = copy_project(Path(folder) / "project")
            done = snakemake(project, "--cores", "1", *QUICK)
            assert done.returncode == 0, done.stdout + done.stderr
        server = Server(Path(folder) / "services")
        try:
            server.order("start")
            for drill in DRILLS:
                clock = time.monotonic()
                print(f"{drill.__name__}: {drill(project, server)} ({time.monotonic() - clock:.0f} s)", flush=True)
        finally:
            server.order("stop")
    print("all held")


if __name__ == "__main__":
    main()
