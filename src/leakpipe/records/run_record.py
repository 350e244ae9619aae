"""The run record that every job writes: what ran, with which settings, for how long, and with what outcome.

MLflow is filled from run records (`leakpipe.tracking.upload`), never the other way round.
"""

import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from leakpipe.files.log import watch_files
from leakpipe.files.storage import write_json
from leakpipe.records.code_version import code_version
from leakpipe.records.command_line import called_with

RECORD_KIND = "leakpipe/run-record"
RECORDS = "records"  # folder of run records in a folder of results
PACKAGES = ("leakpipe", "torch", "torchvision", "numpy", "scipy", "scikit-image", "safetensors", "pandas", "matplotlib")


@dataclass
class RunRecord:
    """One execution of one job.

    Attributes:
        rule: Stage of the pipeline ("invert").
        labels: The cell of the design: experiment, defense, seed, client, attack (those that apply).
        params: Settings the job ran with, JSON-serialisable.
        curves: Metric histories: name → [[step, value], …].
        metrics: Final numbers by name.
        artifacts: Files worth keeping with the run (images, figures), relative to the working folder.
        details: Anything else a later stage reads (per-round timings).

    `record_run` adds what the job itself does not know: the command line, the files read and written with their
    SHA-256, and the environment (commit, version of the code, packages, machine, threads, times, memory).
    """

    rule: str
    labels: Mapping[str, Any]
    params: Mapping[str, Any]
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    artifacts: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def add_curve(self, name: str, steps: Sequence[float], values: Sequence[float]) -> None:
        """Keeps a metric's history; steps are whole numbers."""
        self.curves[name] = [(int(step), float(value)) for step, value in zip(steps, values, strict=True)]


@contextmanager
def record_run(
    path: Path | None, *, rule: str, labels: Mapping[str, Any], params: Mapping[str, Any], module: str | None = None
) -> Iterator[RunRecord]:
    """Times a job and writes its record to `path` when it succeeds; writes nothing if `path` is None.

    The `code_version` of `module` is recorded: `leakpipe.cli.<rule>`, unless another module is given.
    """
    record = RunRecord(rule=rule, labels=labels, params=params)
    if path is None:
        yield record
        return
    code = describe_code(module or f"leakpipe.cli.{rule}")  # before the job: files may be edited while it runs
    started, clock = datetime.now(UTC), time.perf_counter()
    with watch_files() as files:
        yield record
    write_json(
        path,
        {
            "kind": RECORD_KIND,
            "id": uuid.uuid4().hex,
            "rule": rule,
            "labels": dict(record.labels),
            "params": dict(record.params),
            "params_hash": hash_params(record.params),
            "command": called_with(),
            "curves": record.curves,
            "metrics": record.metrics,
            "artifacts": record.artifacts,
            "details": record.details,
            "inputs": files.inputs(),
            "outputs": files.outputs(),
            "environment": {
                "started": started.isoformat(timespec="milliseconds"),
                "seconds": round(time.perf_counter() - clock, 3),
                "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
                **code,
                **describe_machine(),
            },
        },
    )


def hash_params(params: Mapping[str, Any]) -> str:
    """Returns a short hash (12 hex digits) of parameters that does not depend on the order of their keys."""
    return hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()[:12]


def describe_code(module: str) -> dict[str, Any]:
    """Returns commit (None outside git), whether files differ from it, the module that runs, and versions."""
    status = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": None if status is None else bool(status),
        "module": module,
        "code_version": code_version(module),
        "versions": package_versions(),
    }


def package_versions() -> dict[str, str]:
    """Returns the versions of those packages that results depend on and that are installed."""
    return {name: found for name in PACKAGES if (found := _version(name))}


def describe_machine() -> dict[str, Any]:
    """Returns processor, GPU, threads, operating system and Python of this machine; no host name."""
    return {
        "processor": _processor_name(),
        **_describe_torch(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _describe_torch() -> dict[str, Any]:
    """Threads of torch and the GPU that it sees, if any; nothing where torch, slow to import, was not used."""
    torch = sys.modules.get("torch")
    if torch is None:
        return {}
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"threads": torch.get_num_threads(), "gpu": gpu}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
