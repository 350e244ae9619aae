"""The place of a drill: a copy of the project with a tiny experiment, and what must hold after the failure."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import PROJECT
from tests.workflow.conftest import copy_project, environment, result_bytes, snakemake

EXPERIMENT = "tiny"
TINY = ("--configfile", "params.yaml", str(PROJECT / "tests" / "drills" / "tiny.yaml"))
CORES = ("--cores", "1")
# With the targets that list every file of their stage: `all` alone does not miss what only its own inputs are made of.
TARGETS = ("data", "federation", "inversion", "all")


class SkippedDrillError(Exception):
    """This machine does not allow the drill (it needs root, say); the text says what is missing."""


@dataclass(frozen=True)
class Stage:
    """The parts that drills share.

    Attributes:
        folder: Where a drill makes its own copies.
        finished: A project in which the experiment ran undisturbed. Read only.
        seconds: What that run took.
        moments: Chooses when to strike.
        strikes: How often a drill that kills at random moments does so.
    """

    folder: Path
    finished: Path
    seconds: float
    moments: random.Random
    strikes: int

    @classmethod
    def build(cls, folder: Path, *, seed: int, strikes: int) -> "Stage":
        """Run the experiment once, undisturbed."""
        started = time.monotonic()
        finished = copy_project(folder / "finished")
        succeed(finished)
        return cls(folder, finished, time.monotonic() - started, random.Random(seed), strikes)

    def fresh(self, name: str) -> Path:
        """A project in which nothing has run yet."""
        return copy_project(self.folder / name)

    def copy(self, name: str) -> Path:
        """A copy of the finished project, with the same times."""
        target = self.folder / name
        subprocess.run(["cp", "-a", f"{self.finished}/.", str(target)], check=True)
        return target

    def require_same_bytes(self, project: Path) -> None:
        """The results are those of the undisturbed run, and no half-written file is left."""
        ours, undisturbed = result_bytes(project, EXPERIMENT), result_bytes(self.finished, EXPERIMENT)
        assert ours.keys() == undisturbed.keys(), f"other files: {sorted(ours.keys() ^ undisturbed.keys())}"
        different = [name for name in ours if ours[name] != undisturbed[name]]
        assert not different, f"other bytes: {different}"
        assert not (left := list(project.glob("results/**/*.part"))), f"left behind: {left}"


def run(project: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the experiment (or, with other arguments, what they ask for) to its end, however that is."""
    return snakemake(project, *TARGETS, *(arguments or CORES), *TINY, **variables)


def succeed(project: Path, **variables: str) -> str:
    """Run the experiment; it must succeed. Returns what was said."""
    done = run(project, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def fail(project: Path, *said: str, **variables: str) -> None:
    """Run the experiment; it must fail, say this in one sentence, and show no traceback of leakpipe's."""
    done = run(project, **variables)
    output = done.stdout + done.stderr
    assert done.returncode != 0, f"it should have failed:\n{output}"
    for text in said:
        assert text in output, f"{text!r} was not said:\n{output}"
    assert "/src/leakpipe/" not in output, f"a traceback:\n{output}"


@contextmanager
def running(project: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """The experiment in a session of its own; what is left of the session is killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "snakemake", *TARGETS, *CORES, *TINY],
        cwd=project,
        env=environment(project) | variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):  # nobody is left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def workers(session: int) -> list[int]:
    """Process ids of the leakpipe commands of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
            if os.getsid(int(entry.name)) == session and any(part.endswith(b"/leakpipe") for part in command[:2]):
                found.append(int(entry.name))
        except OSError:  # it ended meanwhile
            continue
    return sorted(found)


def wait_for(happened: Callable[[], object], seconds: float = 300.0) -> None:
    """Wait until `happened()` is true."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain"
        time.sleep(0.02)
