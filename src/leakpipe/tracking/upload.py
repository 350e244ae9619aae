"""Run records → MLflow.

No stage depends on MLflow: the truth is on disk, and one process fills MLflow from it, as often as one likes. The
MLflow experiment `leakpipe/<experiment>` holds one parent run per set of parameters, and below it one child run per
run record. The tag `leakpipe.key` names the record that a run was made from, so that a second pass adds nothing. A run
that is not FINISHED was interrupted and is completed by the next pass: times come from the record, and MLflow keeps
a point once however often it is logged. Numbers go first. An artifact that cannot be stored costs only itself: its run
is finished, says so in the tag `leakpipe.unstored`, and the next pass tries again.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leakpipe.errors import LeakpipeError
from leakpipe.files.storage import read_json
from leakpipe.records.reading import read_record
from leakpipe.records.run_record import RECORD_KIND, hash_params
from leakpipe.tracking.artifacts import UNSTORED, Artifacts, why_left_out
from leakpipe.tracking.runs import KEY, KIND, LIVE, PARENT, by_key, find_experiment, remove_doubles, search_runs
from leakpipe.tracking.store import VIEW_TAG, choose_uri, connect, database_file

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

TAG_LENGTH = 5000  # log_batch cuts long values, create_run does not
NAME_LENGTH = 250  # of a parameter or metric
RESERVED = ("mlflow.", "leakpipe.")
MOST_COLUMNS = 24
LABEL_ORDER = ("defense", "seed", "round", "client", "attack")
Record = Mapping[str, Any]


@dataclass(frozen=True)
class TrackingSummary:
    """The effect of one pass.

    Attributes:
        experiment_id: The MLflow experiment.
        parent_run_id: The run that all new runs lie under.
        runs_added: Runs of records that were not in MLflow, or only in part.
        runs_already_there: Runs of records that MLflow had.
        notes: What was left out (artifacts that are missing, not the record's own, or cannot be stored).
    """

    experiment_id: str | None = None
    parent_run_id: str | None = None
    runs_added: int = 0
    runs_already_there: int = 0
    notes: tuple[str, ...] = ()


def find_records(paths: Iterable[Path]) -> dict[Path, dict[str, Any]]:
    """Reads run records: the given files, and all run records anywhere below the given folders.

    Raises:
        LeakpipeError: A file is not a run record, or damaged, or there are none.
    """
    records: dict[Path, dict[str, Any]] = {}
    for path in paths:
        if path.is_dir():
            found = (file for file in sorted(path.rglob("*.json")) if file.is_file())
            records |= {file: read_record(file) for file in found if read_json(file).get("kind") == RECORD_KIND}
        else:
            records[path] = read_record(path)
    if not records:
        raise LeakpipeError("no run record found in the given folders")
    return records


def common_experiment(records: Mapping[Path, Record]) -> str:
    """Returns the experiment that all records are labelled with; `LeakpipeError` if there are several or none."""
    names = sorted({str(record["labels"].get("experiment", "none")) for record in records.values()})
    if len(names) != 1 or names == ["none"]:
        raise LeakpipeError(f"the run records name several experiments or none ({', '.join(names)}): use --experiment")
    return names[0]


def name_run(record: Record) -> str:
    """Describes a record in a few words: "invert none seed0 site-9 bn-aware"."""
    labels = {name: str(value) for name, value in record["labels"].items() if name != "experiment"}
    ordered = [name for name in LABEL_ORDER if name in labels] + [name for name in labels if name not in LABEL_ORDER]
    words = [f"{name}{labels[name]}" if name in ("seed", "round") else labels[name] for name in ordered]
    return " ".join([str(record["rule"]), *words])


def track_records(
    records: Mapping[Path, Record],
    *,
    experiment: str,
    uri: str | None = None,
    params: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    artifacts: Sequence[Path] = (),
    on_record: Callable[[], object] = lambda: None,
) -> TrackingSummary:
    """Adds to MLflow what it does not have yet.

    Args:
        records: Run records by file (`find_records`).
        experiment: Name of the experiment.
        uri: Where MLflow is (`leakpipe.tracking.store.choose_uri`).
        params: All parameters of the experiment, which tell one parent run from another. Without them, new runs go
            below the newest parent.
        metrics: Headline numbers of the parent run, nested.
        artifacts: Figures and tables of the parent run.
        on_record: Called once per record.

    Raises:
        MlflowUnreachableError: MLflow does not answer, or the address is invalid.
    """
    address, (started, ended) = choose_uri(uri), zip(*map(_times, records.values()), strict=True)
    notes: list[str] = []
    added = elsewhere = 0
    with connect(address) as client:
        from mlflow.entities import Metric

        store = Artifacts(client, address)

        experiment_id = find_experiment(client, address, f"leakpipe/{experiment}")
        found = list(search_runs(client, experiment_id))
        runs = by_key(found)
        parent = _find_parent(runs.values(), experiment, params)
        if parent is None:
            key = _parent_key(experiment, params)
            tags = {KEY: key, KIND: "experiment", "experiment": experiment, "mlflow.source.name": "leakpipe"}
            parent = client.create_run(experiment_id, min(started), tags, key).info.run_id
        alive = {run.info.run_id for run in found}
        for path, record in records.items():
            run = runs.get(record["id"])
            if run is None or run.info.status != "FINISHED" or UNSTORED in run.data.tags:
                made = _log_record(client, store, experiment_id, run, parent, path, record)
                notes += [f"{path}: {note}" for note in made]
                added += run is None or run.info.status != "FINISHED"
            if run is not None and run.data.tags.get(PARENT) not in alive:  # somebody deleted it
                client.set_tag(run.info.run_id, PARENT, parent)
            else:
                elsewhere += run is not None and run.data.tags.get(PARENT) != parent
            on_record()
        names = {name_run(record) for record in records.values()}
        for run in found:  # the finished runs replace those that showed the attacks in progress
            if run.data.tags.get(KIND) == LIVE and run.data.tags[KEY] in names:
                client.delete_run(run.info.run_id)
        where = f"; {elsewhere} of them ran before and lie below an earlier run of this experiment" if elsewhere else ""
        about = {"mlflow.note.content": f"The whole experiment: {len(records)} jobs{where}."}
        flat = _flatten(metrics or {})
        about |= {name: value for name, value in flat.items() if isinstance(value, str)}
        points = [Metric(name, value, max(ended), 0) for name, value in _numbers(flat).items()]
        base = Path(os.path.commonpath([path.absolute().parent for path in artifacts])) if artifacts else None
        given = {path: why_left_out(path) for path in artifacts}
        notes += _fill(client, store, parent, points, params or {}, about, given, base=base, ended=max(ended))
        if metrics:
            client.set_experiment_tag(experiment_id, VIEW_TAG, _view(_numbers(flat)))
        if database_file(address) is None:
            parent = remove_doubles(client, experiment_id).get(parent, parent)
    return TrackingSummary(experiment_id, parent, added, len(records) - added, (*notes, *store.notes()))


def _view(metrics: Iterable[str]) -> str:
    """Returns what MLflow's page shows of the table of runs: accuracies, and the most leaked image of each cell."""
    chosen = [name for name in metrics if name.startswith("accuracy.") or name.endswith(".ssim_max")]
    columns = [f"metrics.`{name}`" for name in sorted(chosen)[:MOST_COLUMNS]]
    return json.dumps({"selectedColumns": ["attributes.`Source`", "attributes.`Duration`", *columns]})


def _parent_key(experiment: str, params: Mapping[str, Any] | None) -> str:
    return experiment if params is None else f"{experiment}/{hash_params(params)}"


def _find_parent(runs: Iterable["Run"], experiment: str, params: Mapping[str, Any] | None) -> str | None:
    """Returns the parent run of these parameters, or without parameters the newest parent run."""
    for run in runs:
        tags = run.data.tags
        if tags.get(KIND) == "experiment" and (params is None or tags[KEY] == _parent_key(experiment, params)):
            return str(run.info.run_id)
    return None


def _log_record(
    client: "MlflowClient",
    store: Artifacts,
    experiment_id: str,
    run: "Run | None",
    parent: str,
    path: Path,
    record: Record,
) -> list[str]:
    """Logs all that a record holds, to the unfinished run or to a new one; returns notes."""
    from mlflow.entities import Metric

    (started, ended), environment = _times(record), record["environment"]
    measured = {name: environment[name] for name in ("seconds", "peak_memory_mib") if name in environment}
    if run is None:
        tags = {
            **{name: value for name, value in _flatten(environment).items() if name not in measured},
            **{name: value for name, value in record["labels"].items() if not name.startswith(RESERVED)},
            "params_hash": record.get("params_hash"),
            "rule": record["rule"],
            "leakpipe.record": str(path),
            KEY: record["id"],
            KIND: "job",
            PARENT: parent,
            "mlflow.source.name": f"leakpipe {record['rule'].replace('_', '-')}",
            "mlflow.source.git.commit": environment.get("commit") or "",
        }
        run = client.create_run(
            experiment_id,
            start_time=started,
            tags={name: _as_text(value)[:TAG_LENGTH] for name, value in tags.items()},
            run_name=name_run(record),
        )
    points: list[Metric] = []
    for name, curve in record["curves"].items():
        spacing = (ended - started) / max(len(curve), 1)
        points += [
            Metric(_allowed(name), value, started + int(spacing * i), step) for i, (step, value) in enumerate(curve)
        ]
    last_step = max((point.step for point in points), default=0)
    latest = max(ended, started + 1)  # so that a final value counts more than a curve's of the same name
    final = _numbers(_flatten(record["metrics"] | measured))
    points += [Metric(name, value, latest, last_step) for name, value in final.items()]
    artifacts = {Path(artifact): why_left_out(Path(artifact), (path, record)) for artifact in record["artifacts"]}
    return _fill(client, store, run.info.run_id, points, record["params"], {}, artifacts, base=None, ended=ended)


def _fill(
    client: "MlflowClient",
    store: Artifacts,
    run_id: str,
    points: Sequence["Metric"],
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    artifacts: Mapping[Path, str],
    *,
    base: Path | None,
    ended: int,
) -> list[str]:
    """Logs everything and finishes the run; returns a note for each artifact that was left out.

    Args:
        artifacts: Files, each with the reason why it is left out (`why_left_out`).
        base: Artifacts keep their folders relative to this one; without it they lie side by side.
    """
    from mlflow.entities import Param, RunTag

    notes = [f"artifact {path} {why} and was left out" for path, why in artifacts.items() if why]
    tags = {**tags, "leakpipe.notes": "\n".join(notes)} if notes else tags
    settings = [Param(name, _as_text(value)) for name, value in _flatten(params).items()]
    client.log_batch(run_id, points, settings, [RunTag(*tag) for tag in tags.items()])
    kept = [path for path, why in artifacts.items() if not why]
    store.add(run_id, {path: os.path.relpath(path.parent, base) if base else "." for path in kept})
    client.set_terminated(run_id, "FINISHED", end_time=ended)
    return notes


def _flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Converts {"a": {"b": 1}} to {"a.b": 1}, in the characters that MLflow allows; lists are values."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[_allowed(f"{prefix}{name}")] = value
    return flat


def _allowed(name: str) -> str:
    """Returns a name that MLflow takes: in its characters, not too long, and a path that leads down."""
    parts = re.sub(r"[^\w.\- /]", "_", name)[:NAME_LENGTH].split("/")
    return "/".join(f"_{part}" if part[:1] in ("", ".") else part for part in parts)[:NAME_LENGTH].rstrip("/")


def _numbers(flat: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in flat.items() if isinstance(value, int | float)}


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _times(record: Record) -> tuple[int, int]:
    """Returns start and end of a run in milliseconds since 1970."""
    environment = record["environment"]
    started = round(datetime.fromisoformat(environment["started"]).timestamp() * 1000)
    return started, started + round(float(environment["seconds"]) * 1000)
