"""The output of an audit while Snakemake runs it: a line for each step; Snakemake's own words go to a file."""

import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

JOB = re.compile(r"^(?:local)?(?:rule|checkpoint) (\w+):$")
FIELD = re.compile(r"^ {4}(\w+): (.*)$")
FINISHED = re.compile(r"^Finished jobid: (\d+) ")
COUNT = re.compile(r"^(\d+) of (\d+) steps \(")
FAILED = re.compile(r"^ {4}log: (.+) \(check log file")
STEPS = {
    "read_update": "{captured}: read and checked",
    "defend_update": "{captured}: defended as well",
    "invert": "{captured}, {defense}: attack {attack} finished",
    "assess": "judged; the page is written",
    "track": "logged to MLflow",
}
TELLING = 0.05  # of the work must be done before its pace says anything of the rest


@dataclass
class Progress:
    """Reads Snakemake's output line by line.

    Attributes:
        seconds: What every step is expected to take, by `(rule, captured, defense, attack)`; "" where a rule has none.
        failed: The log of the step that failed; None where none did.
    """

    seconds: Mapping[tuple[str, str, str, str], float]
    failed: Path | None = None
    _rule: str = ""
    _jobs: dict[str, dict[str, str]] = field(default_factory=dict)
    _begun: dict[str, float] = field(default_factory=dict)
    _last: str = ""
    _done: float = 0.0
    _started: float = field(default_factory=time.monotonic)

    def read(self, line: str) -> str | None:
        """Takes a line; returns what there is to say of a step that it finishes."""
        if job := JOB.match(line):
            self._rule, self._jobs[""] = job[1], {}
        elif part := FIELD.match(line):
            if failed := FAILED.match(line):
                self.failed = Path(failed[1])
            self._note(part[1], part[2])
        elif finished := FINISHED.match(line):
            self._last = finished[1]
        elif (count := COUNT.match(line)) and self._last in self._jobs:
            return self._say(int(count[1]), int(count[2]))
        return None

    def _note(self, name: str, value: str) -> None:
        if name == "jobid":
            self._last = value
            self._jobs[value] = {"rule": self._rule}
            self._begun[value] = time.monotonic()
        elif name == "wildcards" and self._last in self._jobs:
            self._jobs[self._last] |= dict(each.split("=", 1) for each in value.split(", "))

    def _say(self, done: int, total: int) -> str | None:
        job = self._jobs[self._last]
        if job["rule"] not in STEPS:
            return None
        now = time.monotonic()
        step = (job["rule"], job.get("captured", ""), job.get("defense", ""), job.get("attack", ""))
        self._done += self.seconds.get(step, 0.0)
        said = STEPS[job["rule"]].format_map(job)
        took = f"{now - self._begun[self._last]:.0f} s"
        return f"[{done}/{total}] {said} after {took}{self._remaining(now, total)}"

    def _remaining(self, now: float, total: int) -> str:
        """Says how long the rest takes at the pace so far; an earlier run may have done some of all steps."""
        share = min(1.0, total / (len(self.seconds) + 1))  # Snakemake counts the target as a step
        whole = share * sum(self.seconds.values())
        left = whole - self._done
        if left <= 0 or self._done < TELLING * whole:
            return ""
        seconds = left * (now - self._started) / self._done
        return f"; about {seconds:.0f} s left" if seconds < 90 else f"; about {seconds / 60:.0f} min left"


def run_shown(command: Sequence[str], progress: Progress, log: Path, **options: Any) -> int:
    """Runs Snakemake with its output in a file, says each finished step, and returns its exit code."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("w", encoding="utf-8") as stream,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", **options
        ) as running,
    ):
        assert running.stdout is not None  # it was asked for
        try:
            for line in running.stdout:
                stream.write(line)
                stream.flush()
                if said := progress.read(line.rstrip("\n")):
                    click.echo(said)
        except KeyboardInterrupt:  # Snakemake got it too, and ends its jobs
            running.wait()
            raise
    return running.returncode
