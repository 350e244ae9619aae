"""A job that needs more memory than there is."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.drills.stage import CORES, TARGETS, TINY, SkippedDrillError, Stage, succeed
from tests.workflow.conftest import environment

# Where control groups of memory are, and what their limit is called: version 1, version 2.
LAYOUTS = ((Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"), (Path("/sys/fs/cgroup"), "memory.max"))
LIMIT = 320_000_000  # bytes: Snakemake itself fits, torch does not


def out_of_memory(stage: Stage) -> None:
    """The kernel kills an attack that outgrows its memory: Snakemake names it, the same command finishes with more."""
    project = stage.copy("out-of-memory")
    (project / "results/tiny/inversion/none/seed1/round1/site-9/leakpipe.safetensors").unlink()
    with memory_group(LIMIT) as group:
        enter = f"echo $$ >'{group}/cgroup.procs' && exec \"$@\""
        command = [sys.executable, "-m", "snakemake", *TARGETS, *CORES, *TINY]
        done = subprocess.run(
            ["sh", "-c", enter, "sh", *command],
            cwd=project,
            env=environment(project),
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1, f"it should have failed:\n{done.stdout}{done.stderr}"
    assert "Error in rule invert" in done.stdout + done.stderr, done.stderr
    succeed(project)
    stage.require_same_bytes(project)


@contextmanager
def memory_group(limit: int) -> Iterator[Path]:
    """A control group whose processes may take `limit` bytes of memory together; needs root."""
    for folder, name in LAYOUTS:
        group = folder / "leakpipe-drill"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if not (group / name).exists():
                continue
            (group / name).write_text(str(limit))
            yield group
            return
        finally:
            group.rmdir()
    raise SkippedDrillError("no control group of memory can be made here")


DRILLS = (out_of_memory,)
