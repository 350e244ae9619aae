"""Runs a job again, by the command in its run record, in a temporary folder, and compares its files with the results.

The folder holds links to what the job read, under the names in the record: the command is the one that ran, word for
word, and the results stay untouched.
"""

import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from leakpipe.errors import LeakpipeError
from leakpipe.randomness import derive_seed
from leakpipe.records.code_version import ROOT
from leakpipe.records.reading import read_record
from leakpipe.records.verification.checks import differing_environment
from leakpipe.records.verification.difference import Difference, compare_files
from leakpipe.records.verification.results import Record, Results

# In a command of others, --each could name files outside by the parts of their paths, and --network run any function.
REFUSED = {"--each", "--network"}
# What differs between processors without an error: rounding, which attacks amplify (measurements: docs/verify.md).
TOLERANCES = {"invert": 0.1, "federate": 0.001}


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Outcome of running a job again.

    Attributes:
        differences: Every file that it wrote with other bytes, by name.
        environment: What the numbers may depend on and has changed (`differing_environment`).
        tolerance: Largest difference allowed where the environment has changed.
        seconds: Duration of the job.
    """

    differences: dict[str, Difference]
    environment: list[str]
    tolerance: float
    seconds: float

    @property
    def largest(self) -> Difference:
        """The largest difference; 0 if there is none."""
        return max(self.differences.values(), key=lambda difference: difference.size, default=Difference(0.0))

    def findings(self, results: Results) -> list[str]:
        """Returns a sentence about each file that differs: in bytes, or beyond `tolerance` in another environment."""
        allowed = self.tolerance if self.environment else -1.0
        said = f"; other environment: {', '.join(self.environment)}" if self.environment else " in the same environment"
        return [
            f"{results.place(name)}: run again it has {_describe(difference)}{said}"
            for name, difference in self.differences.items()
            if difference.size > allowed
        ]


def _describe(difference: Difference) -> str:
    if difference.size == 0:
        return "other bytes but the same numbers"
    if math.isinf(difference.size):
        return f"other content ({difference.where})"
    return f"other numbers ({difference.where}: {difference.size:.2g} apart)"


def sample_jobs(results: Results, rule: str, *, count: int, seed: int | None) -> list[str]:
    """Returns names of the records of `count` jobs of a rule, sorted: the quickest, or drawn at random by `seed`."""
    seconds = {
        name: record["environment"]["seconds"] for name, record in results.records.items() if record["rule"] == rule
    }
    order = {name: seconds[name] if seed is None else derive_seed("verify", seed, name) for name in seconds}
    return sorted(sorted(order, key=lambda name: (order[name], name))[:count])


def replay(results: Results, name: str, *, tolerance: float | None = None) -> Replay:
    """Runs the job of a record again; `tolerance` is that of the rule (`TOLERANCES`) unless given.

    Raises:
        LeakpipeError: The record has no command that can be run elsewhere, an input is missing, or the command fails.
    """
    record, place = results.records[name], results.place(name)
    command = record.get("command")
    if not command or command[0] != record["rule"]:
        raise LeakpipeError(f"{place}: command: missing; the job was not run by a command, or by an older leakpipe")
    if refused := REFUSED & {argument.partition("=")[0] for argument in command}:
        raise LeakpipeError(f"{place}: command: has {min(refused)}, expected the command of one cell of the pipeline")
    if outside := _writes_outside(command):
        raise LeakpipeError(f"{place}: command: writes to {outside}, expected a path in the working folder")
    with tempfile.TemporaryDirectory(prefix="leakpipe-verify-") as temporary:
        folder = Path(temporary)
        _link_inputs(results, record, folder)
        _run(command, folder, source=place)
        again = read_record(folder / name)
        return Replay(
            differences=dict(_compare_outputs(results, record, folder)),
            environment=differing_environment(record["environment"], again["environment"]),
            tolerance=TOLERANCES[record["rule"]] if tolerance is None else tolerance,
            seconds=again["environment"]["seconds"],
        )


def _writes_outside(command: Sequence[str]) -> str | None:
    """A path outside of the working folder that the command writes: run again, it would replace results."""
    split = [part for argument in command for part in argument.split("=", 1 if argument.startswith("--") else 0)]
    written = (value for option, value in pairwise(split) if option.startswith(("--out", "--record", "--checkpoints")))
    return next(filter(_is_outside, written), None)


def _is_outside(name: str) -> bool:
    return Path(name).is_absolute() or ".." in Path(name).parts


def _link_inputs(results: Results, record: Record, folder: Path) -> None:
    """Links what the job read. Only the name of files from outside is recorded; the command finds them itself."""
    for name in record["inputs"]:
        source = results.place(name).absolute()
        if _is_outside(name) or (len(Path(name).parts) == 1 and not source.is_file()):
            continue
        if not source.is_file():
            raise LeakpipeError(f"{results.place(name)}: missing; {record['rule']} reads it")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(source)


def _run(command: Sequence[str], folder: Path, *, source: Path) -> None:
    """Runs this code's `leakpipe` in `folder` and shows its progress; never code from there (a linked `torch.py`)."""
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    paths = [str(ROOT.parent), *(str(Path(path).absolute()) for path in inherited if path)]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "leakpipe", *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        raise LeakpipeError(f"{source}: its command fails when run again (exit code {done.returncode}), see above")


def _compare_outputs(results: Results, record: Record, folder: Path) -> list[tuple[str, Difference]]:
    compared = []
    for name in record["outputs"]:
        before, after = results.place(name), folder / name
        if not (before.is_file() and after.is_file()):
            compared.append((name, Difference(math.inf, "missing")))
        elif before.read_bytes() != after.read_bytes():
            compared.append((name, compare_files(before, after)))
    return compared
