"""Runs that are killed, stopped or doubled."""

import os
import signal
import time
from pathlib import Path

from tests.drills.stage import Stage, fail, run, running, succeed, wait_for, workers


def kill_snakemake(stage: Stage) -> None:
    """kill -9 of Snakemake and all its jobs at a random moment, again and again, then the same command."""
    project, landed, runs = stage.fresh("kill-snakemake"), 0, 1
    while landed < stage.strikes:
        with running(project) as process:
            time.sleep(stage.moments.uniform(0, 0.7 * stage.seconds))
            over = process.poll() is not None
        assert run(project, "--unlock").returncode == 0
        landed += not over
        if over:  # the strikes before left so little to do that it came to its end: the next fall on a new run
            finish(stage, project)
            runs += 1
            project = stage.fresh(f"kill-snakemake-{runs}")
    finish(stage, project)


def kill_only_snakemake(stage: Stage) -> None:
    """kill -9 of Snakemake alone: the job that it leaves behind may still write while the next run starts."""
    project = stage.fresh("kill-only-snakemake")
    with running(project) as process:
        wait_for(lambda: workers(process.pid))
        process.kill()
        process.wait()
        assert run(project, "--unlock").returncode == 0
        finish(stage, project)


def kill_worker(stage: Stage) -> None:
    """kill -9 of one job, as the kernel does when memory is short: Snakemake fails and names the rule."""
    project = stage.fresh("kill-worker")
    landed = 0
    for _ in range(stage.strikes):
        with running(project) as process:
            time.sleep(stage.moments.uniform(0, 0.5 * stage.seconds))
            wait_for(lambda: workers(process.pid) or process.poll() is not None)
            for worker in workers(process.pid)[:1]:
                os.kill(worker, signal.SIGKILL)
            failed = process.wait()  # 0: nothing was left to strike, or the job had just ended
            assert failed in (0, 1)
            landed += failed
    assert landed, "no strike landed"
    finish(stage, project)


def terminate(stage: Stage) -> None:
    """SIGTERM to Snakemake, as `timeout` and schedulers send it: it ends, and needs no unlocking."""
    project = stage.fresh("terminate")
    with running(project) as process:
        wait_for(lambda: workers(process.pid))
        process.terminate()
        assert process.wait() != 0
    finish(stage, project)


def two_runs(stage: Stage) -> None:
    """A second Snakemake in the same folder refuses and says why; the first goes on."""
    project = stage.fresh("two-runs")
    with running(project) as process:
        wait_for(lambda: workers(process.pid))
        fail(project, "Directory cannot be locked")
        assert process.wait() == 0
    finish(stage, project)


def finish(stage: Stage, project: Path) -> None:
    """The same command, once more: it ends well, with the bytes of the undisturbed run."""
    succeed(project)
    stage.require_same_bytes(project)


DRILLS = (kill_snakemake, kill_only_snakemake, kill_worker, terminate, two_runs)
