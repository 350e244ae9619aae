"""Disks that are full, read-only or wrong, and clocks that jump."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.drills.stage import SkippedDrillError, Stage, fail, run, succeed
from tests.workflow.conftest import copy_project

INVERSION = "results/tiny/inversion"
UPDATES = "results/tiny/federation/none/seed1/round2"
DAY = 86_400.0


def full_disk(stage: Stage) -> None:
    """The disk fills up in the middle of the run; the same command finishes when there is room again."""
    with small_disk(stage.folder / "full-disk", "size=64m") as project:
        copy_project(project)
        results = project / "results" / "tiny"
        results.mkdir(parents=True)
        free = os.statvfs(project)
        leave = 300_000  # bytes: the images fit, the federation's models do not
        (project / "ballast").write_bytes(bytes(free.f_bavail * free.f_frsize - leave))
        fail(project, "No space left on device")
        (project / "ballast").unlink()
        succeed(project)
        stage.require_same_bytes(project)


def read_only_results(stage: Stage) -> None:
    """The results cannot be written: refused before any job, nothing lost; the same command finishes when they can."""
    project = stage.copy("read-only")
    results = project / "results"
    saved = project / "saved"
    results.rename(saved)
    with small_disk(results, "size=64m"):
        subprocess.run(["cp", "-a", f"{saved}/.", str(results)], check=True)
        remove(project, f"{INVERSION}/none/seed1/round1/site-9/leakpipe.safetensors")
        subprocess.run(["mount", "-o", "remount,ro", str(results)], check=True)
        fail(project, "Write-protected output files")  # Snakemake looks before it starts anything
        subprocess.run(["mount", "-o", "remount,rw", str(results)], check=True)
        succeed(project)
        stage.require_same_bytes(project)


def corrupted(stage: Stage) -> None:
    """A bit flips in an update, its time unchanged: the attack refuses it, and deleting it makes it anew."""
    project = stage.copy("corrupted")
    spoil(project / UPDATES / "site-9" / "update.safetensors", lambda content: content[:-1] + bytes([content[-1] ^ 1]))
    refuse_then_mend(stage, project, "is truncated or not the file its sidecar")


def truncated(stage: Stage) -> None:
    """An update is cut short: as above."""
    project = stage.copy("truncated")
    spoil(project / UPDATES / "site-9" / "update.safetensors", lambda content: content[:1000])
    refuse_then_mend(stage, project, "is truncated or not the file its sidecar")


def swapped(stage: Stage) -> None:
    """Another client's update, whole and with its sidecar, in the place of one: refused, though it is valid."""
    project = stage.copy("swapped")
    for name in ("update.safetensors", "update.json"):
        other = (project / UPDATES / "site-1" / name).read_bytes()
        spoil(project / UPDATES / "site-9" / name, lambda _, other=other: other)  # type: ignore[misc]
    refuse_then_mend(stage, project, "is of client 'site-1', expected 'site-9'")


def clock_jumps(stage: Stage) -> None:
    """The clock ran a day ahead, then behind, then anyhow: contents are compared, so nothing runs again for it.

    A job that reads files of tomorrow is refused; given the present time, they are as good as before.
    """
    project = stage.copy("clock")
    results = [path for path in sorted(project.glob("results/**/*")) if path.is_file()]
    for shift in (lambda: DAY, lambda: -DAY, lambda: stage.moments.uniform(-DAY, DAY)):
        for path in results:
            moment = time.time() + shift()
            os.utime(path, (moment, moment))
        planned = run(project, "-n")
        assert "Nothing to be done" in planned.stdout + planned.stderr, planned.stdout
    tomorrow = time.time() + DAY
    for path in results:
        os.utime(path, (tomorrow, tomorrow))
    remove(project, f"{INVERSION}/none/seed1/round1/site-9/leakpipe.safetensors")
    fail(project, "has older modification time")  # Snakemake's words
    subprocess.run("find results -type f -newermt now -exec touch {} +", shell=True, check=True, cwd=project)
    succeed(project)
    stage.require_same_bytes(project)


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own at `folder`, in memory; needs root."""
    folder.mkdir(parents=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SkippedDrillError(f"cannot mount: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def spoil(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change a file's content and keep its times."""
    before = path.stat()
    path.write_bytes(change(path.read_bytes()))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def remove(project: Path, *names: str) -> None:
    """Delete files, so that the rule that makes them runs again."""
    for name in names:
        (project / name).unlink()


def refuse_then_mend(stage: Stage, project: Path, said: str) -> None:
    """The attack that reads the spoilt update fails and says why; without the update the same command mends all."""
    remove(project, f"{INVERSION}/none/seed1/round2/site-9/leakpipe.safetensors")
    fail(project, said)
    remove(project, f"{UPDATES}/site-9/update.safetensors")
    succeed(project)
    stage.require_same_bytes(project)


DRILLS = (full_disk, read_only_results, corrupted, truncated, swapped, clock_jumps)
