"""Run records → MLflow.

Only this module and the `mlflow_…` beside it know MLflow; no stage depends on it. What is on
disk is the truth; MLflow is filled from it by one process, as often as one likes. In the MLflow experiment
`leakpipe/<experiment>` lies one parent run per set of parameters and below it one child run per run record. The tag
`leakpipe.key` says which record a run was made of, so a second pass adds nothing; a run that is not FINISHED was cut
short, and the next pass completes it (times come from the record, so writing a metric again changes nothing).
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leakpipe.errors import LeakpipeError
from leakpipe.files.storage import read_json
from leakpipe.records.run_record import RECORD_KIND, hash_params, read_record
from leakpipe.tracking.entries import TAG_LENGTH, as_params, as_tags, flatten, log_artifacts, log_batches, split_numbers
from leakpipe.tracking.runs import KEY, KIND, PARENT, find_experiment, list_runs, remove_doubles, remove_live_runs
from leakpipe.tracking.store import choose_uri, connect, database_file, without_credentials

if TYPE_CHECKING:
    from mlflow import MlflowClient

CONTENT = "leakpipe.content"
LABEL_ORDER = ("defense", "seed", "round", "client", "attack")


@dataclass(frozen=True)
class TrackingSummary:
    """What one pass did.

    Attributes:
        uri: Where MLflow is, without credentials.
        reached: Whether MLflow has everything now.
        parent_run_id: The run that all new runs lie under.
        runs_added: Runs of records that were not in MLflow, or only in part.
        runs_already_there: Runs of records that MLflow had.
        notes: What was left out (artifacts that are missing, values that were cut).
        seconds: Wall time.
    """

    uri: str
    reached: bool
    parent_run_id: str | None = None
    runs_added: int = 0
    runs_already_there: int = 0
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


def find_records(paths: Iterable[Path]) -> dict[Path, dict[str, Any]]:
    """Read run records: files, and all run records (other JSON is passed over) anywhere below folders.

    Raises:
        LeakpipeError: A file is not a run record, a field that tracking needs is missing, or there are none.
    """
    records: dict[Path, dict[str, Any]] = {}
    paths = list(paths)
    for path in paths:
        if path.is_dir():
            found = {file: read_json(file) for file in sorted(path.rglob("*.json"))}
            records |= {file: content for file, content in found.items() if content.get("kind") == RECORD_KIND}
        else:
            records[path] = read_record(path)
    for path, record in records.items():
        _check(path, record)
    if not records:
        raise LeakpipeError(f"{', '.join(map(str, paths))}: no run record found")
    return records


def _check(path: Path, record: Mapping[str, Any]) -> None:
    fields = {"id": str, "rule": str, "artifacts": list}
    fields |= dict.fromkeys(("labels", "params", "curves", "metrics", "environment"), dict)
    for name, kind in fields.items():
        if not isinstance(record.get(name), kind):
            raise LeakpipeError(f"{path}: {name}: {record.get(name)!r}, expected a {kind.__name__}")
    try:
        _times(record)
    except (KeyError, TypeError, ValueError) as error:
        raise LeakpipeError(f"{path}: environment: started (ISO time) and seconds (number) are expected") from error


def common_experiment(records: Mapping[Path, Mapping[str, Any]]) -> str:
    """Return the experiment that all records are labelled with; `LeakpipeError` if there are several or none."""
    names = sorted({str(record["labels"].get("experiment", "")) for record in records.values()})
    if len(names) != 1 or not names[0]:
        found = ", ".join(name or "none" for name in names)
        raise LeakpipeError(f"the run records name several experiments or none ({found}): say which with --experiment")
    return names[0]


def track_records(
    records: Mapping[Path, Mapping[str, Any]],
    *,
    experiment: str,
    uri: str | None = None,
    params: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    artifacts: Sequence[Path] = (),
    on_record: Callable[[], object] = lambda: None,
) -> TrackingSummary:
    """Add to MLflow what it does not have yet.

    Args:
        records: Run records by file (`find_records`).
        experiment: Name of the experiment.
        uri: Where MLflow is (`choose_uri`).
        params: All parameters of the experiment; they tell one parent run from another. Without them, new
            runs go under the newest parent.
        metrics: Headline numbers of the parent run, nested.
        artifacts: Figures and tables of the parent run.
        on_record: Called once per record.

    Raises:
        MlflowUnreachableError: MLflow does not answer, or the address is none.
    """
    clock, address = time.perf_counter(), choose_uri(uri)
    notes: list[str] = []
    added = 0
    with connect(address) as client:
        experiment_id = find_experiment(client, address, f"leakpipe/{experiment}")
        runs = list_runs(client, experiment_id)
        parent = _find_parent(client, experiment_id, runs, records, experiment, params)
        for path, record in records.items():
            run = runs.get(record["id"])
            if run is None or run.info.status != "FINISHED":
                run_id = run.info.run_id if run else _create_child(client, experiment_id, parent, path, record)
                notes += _fill_child(client, run_id, path, record)
                added += 1
            on_record()
        remove_live_runs(client, experiment_id, set(map(name_run, records.values())))
        elsewhere = sum(
            runs[record["id"]].data.tags.get(PARENT) != parent for record in records.values() if record["id"] in runs
        )
        notes += _fill_parent(client, parent, runs, records, elsewhere, params, metrics, artifacts)
        if database_file(address) is None:
            parent = remove_doubles(client, experiment_id).get(parent, parent)
    seconds = round(time.perf_counter() - clock, 2)
    return TrackingSummary(
        without_credentials(address), True, parent, added, len(records) - added, tuple(notes), seconds
    )


def _find_parent(
    client: "MlflowClient",
    experiment_id: str,
    runs: Mapping[str, Any],
    records: Mapping[Path, Mapping[str, Any]],
    experiment: str,
    params: Mapping[str, Any] | None,
) -> str:
    """The parent run of these parameters: found, else made; one made without parameters is given them."""
    params_hash = hash_params(params) if params else None
    key = f"{experiment}/{params_hash}" if params else experiment
    parents = [run for run in runs.values() if run.data.tags.get(KIND) == "experiment"]
    fitting = [run for run in parents if not params or run.data.tags[KEY] in (key, experiment)]
    fitting.sort(key=lambda run: run.data.tags[KEY] != key)  # stable: the newest of those that fit equally
    tags = {KEY: key, "mlflow.runName": f"{experiment} {params_hash}" if params else experiment}
    if params_hash:
        tags["params_hash"] = params_hash
    if fitting:
        parent = str(fitting[0].info.run_id)
        if params and fitting[0].data.tags[KEY] != key:
            for name, value in tags.items():
                client.set_tag(parent, name, value)
        return parent
    tags |= {KIND: "experiment", "experiment": experiment, "mlflow.source.name": "leakpipe"}
    started = min(_times(record)[0] for record in records.values())
    return str(client.create_run(experiment_id, start_time=started, tags=tags).info.run_id)


def _fill_parent(
    client: "MlflowClient",
    parent: str,
    runs: Mapping[str, Any],
    records: Mapping[Path, Mapping[str, Any]],
    elsewhere: int,
    params: Mapping[str, Any] | None,
    metrics: Mapping[str, Any] | None,
    artifacts: Sequence[Path],
) -> list[str]:
    """Bring the parent run up to date, unless it holds exactly this already; returns notes."""
    content = _digest([metrics, elsewhere, len(records), bool(params)], artifacts)
    known = next((run for run in runs.values() if run.info.run_id == parent), None)
    nothing_new = known and (known.data.tags.get(CONTENT) == content or not (params or metrics or artifacts))
    if known and known.info.status == "FINISHED" and nothing_new:
        return []
    ended = max(_times(record)[1] for record in records.values())
    numbers, texts = split_numbers(flatten(metrics or {}))
    text_params, notes = as_params(params or {})
    log_batches(client, parent, [(name, value, ended, 0) for name, value in numbers.items()], text_params)
    where = f"; {elsewhere} of them ran before, and lie under an earlier run of this experiment" if elsewhere else ""
    texts["mlflow.note.content"] = f"The whole experiment: {len(records)} jobs{where}."
    for name, value in texts.items():
        client.set_tag(parent, name, value[:TAG_LENGTH])
    base = Path(os.path.commonpath([path.absolute().parent for path in artifacts])) if artifacts else Path()
    notes += log_artifacts(client, parent, artifacts, base)
    client.set_tag(parent, CONTENT, content)
    client.set_terminated(parent, "FINISHED", end_time=ended)
    return notes


def _create_child(
    client: "MlflowClient", experiment_id: str, parent: str, path: Path, record: Mapping[str, Any]
) -> str:
    environment = record["environment"]
    tags = {
        **record["labels"],
        **{f"version.{name}": value for name, value in environment.get("versions", {}).items()},
        **{name: environment[name] for name in ("processor", "cores", "system", "python") if name in environment},
        KEY: record["id"],
        KIND: "job",
        PARENT: parent,
        "leakpipe.record": path,
        "rule": record["rule"],
        "params_hash": record.get("params_hash"),
        "commit": environment.get("commit"),
        "uncommitted_changes": environment.get("uncommitted_changes"),
        "mlflow.source.name": f"leakpipe {record['rule'].replace('_', '-')}",
    }
    if environment.get("commit"):
        tags["mlflow.source.git.commit"] = environment["commit"]
    start, name = _times(record)[0], name_run(record)
    return str(client.create_run(experiment_id, start_time=start, tags=as_tags(tags), run_name=name).info.run_id)


def name_run(record: Mapping[str, Any]) -> str:
    """Say in a few words what a record is of: "invert none seed0 site-9 bn-aware"."""
    labels = {name: str(value) for name, value in record["labels"].items() if name != "experiment"}
    ordered = [name for name in LABEL_ORDER if name in labels] + [name for name in labels if name not in LABEL_ORDER]
    words = [f"{name}{labels[name]}" if name in ("seed", "round") else labels[name] for name in ordered]
    return " ".join([str(record["rule"]), *words])


def _fill_child(client: "MlflowClient", run_id: str, path: Path, record: Mapping[str, Any]) -> list[str]:
    """Log all that a record holds and finish the run; returns notes."""
    started, ended = _times(record)
    points: list[tuple[str, float, int, int]] = []
    for name, curve in record["curves"].items():
        spacing = (ended - started) / max(len(curve), 1)
        points += [(name, value, started + int(spacing * index), step) for index, (step, value) in enumerate(curve)]
    environment = record["environment"]
    final = {**record["metrics"], **{n: environment[n] for n in ("seconds", "peak_memory_mib") if n in environment}}
    last_step = {name: max((step for step, _ in curve), default=0) for name, curve in record["curves"].items()}
    numbers, _ = split_numbers(flatten(final))
    latest = max(ended, started + 1)  # so that a final value counts more than a curve's of the same name
    points += [(name, value, latest, last_step.get(name, 0)) for name, value in numbers.items()]
    params, notes = as_params(record["params"])
    log_batches(client, run_id, points, params)
    notes += log_artifacts(client, run_id, [Path(artifact) for artifact in record["artifacts"]], base=None)
    notes = [f"{path}: {note}" for note in notes]
    if notes:
        client.set_tag(run_id, "leakpipe.notes", "\n".join(notes)[:TAG_LENGTH])
    client.set_terminated(run_id, "FINISHED", end_time=ended)
    return notes


def _times(record: Mapping[str, Any]) -> tuple[int, int]:
    """Start and end of a run in milliseconds since 1970."""
    environment = record["environment"]
    started = round(datetime.fromisoformat(environment["started"]).timestamp() * 1000)
    return started, started + round(float(environment["seconds"]) * 1000)


def _digest(content: Any, files: Iterable[Path]) -> str:
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for path in files:
        digest.update(str(path).encode() + (hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b""))
    return digest.hexdigest()[:16]
