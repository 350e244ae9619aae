"""Curves of attacks in progress → MLflow.

Each attack has a run that is RUNNING. It is filled from the attack's checkpoints with the points that MLflow does not
have yet, so any number of passes does no harm. It outlives a kill, because the attack will continue. Once the attack's
run record is tracked (`leakpipe.tracking.upload`), the run of the record replaces it; its key is that run's name.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from leakpipe.attacks.progress import Progress
from leakpipe.tracking.runs import KEY, KIND, LIVE, find_experiment, search_runs
from leakpipe.tracking.store import choose_uri, connect
from leakpipe.tracking.upload import name_run

if TYPE_CHECKING:
    from mlflow import MlflowClient

NOTE = "Curves so far of an attack that is running, or was stopped and will continue. Its finished run replaces this."


def log_progress(running: Iterable[Progress], *, uri: str | None = None) -> int:
    """Adds the points that MLflow lacks of running attacks' curves; without any attack, MLflow is not contacted.

    Args:
        running: What the attacks' checkpoints hold (`leakpipe.attacks.progress.read_progress`).
        uri: Where MLflow is (`leakpipe.tracking.store.choose_uri`).

    Returns:
        The number of points that were added.

    Raises:
        MlflowUnreachableError: MLflow does not answer, or the address is invalid.
    """
    by_experiment: dict[str, list[Progress]] = defaultdict(list)
    for progress in running:
        by_experiment[str(progress.labels["experiment"])].append(progress)
    if not by_experiment:
        return 0
    address, added = choose_uri(uri), 0
    with connect(address) as client:
        for experiment, group in sorted(by_experiment.items()):
            experiment_id = find_experiment(client, address, f"leakpipe/{experiment}")
            live = [run for run in search_runs(client, experiment_id) if run.data.tags.get(KIND) == LIVE]
            run_ids = {run.data.tags[KEY]: run.info.run_id for run in live}
            for progress in group:
                added += _log(client, experiment_id, run_ids, progress)
    return added


def _log(client: "MlflowClient", experiment_id: str, run_ids: dict[str, str], progress: Progress) -> int:
    """Brings the run of one attack up to date; returns the number of points that were added."""
    from mlflow.entities import Metric

    key = name_run({"rule": "invert", "labels": progress.labels})
    logged: Mapping[str, list[tuple[int, float]]] = {name: [] for name in progress.curves}
    if key in run_ids:  # as a set, because two passes at once may log a point twice
        histories = {name: client.get_metric_history(run_ids[key], name) for name in progress.curves}
        logged = {name: sorted({(p.step, p.value) for p in history}) for name, history in histories.items()}
        pairs = [pair for name, curve in progress.curves.items() for pair in zip(curve, logged[name], strict=False)]
        if any(ours != theirs for ours, theirs in pairs):  # other settings or code: the attack started over
            client.delete_run(run_ids.pop(key))
            logged = {name: [] for name in progress.curves}
    if key not in run_ids:
        tags = {**progress.labels, KEY: key, KIND: LIVE, "rule": "invert", "mlflow.note.content": NOTE}
        tags["mlflow.source.name"] = "leakpipe invert"
        run_ids[key] = client.create_run(experiment_id, tags=tags, run_name=key).info.run_id
    points = [
        Metric(name, value, progress.saved, step)
        for name, curve in progress.curves.items()
        for step, value in curve[len(logged[name]) :]
    ]
    client.log_batch(run_ids[key], points)
    return len(points)
