"""Curves of attacks that are not finished → MLflow, so that they can be seen meanwhile.

Each attack has a run that is RUNNING. It is filled from the attack's checkpoints, and what is missing is asked of
MLflow, so any number of passes does no harm. It stays after a kill, for the attack will go on from there. When the
attack's run record is tracked (`leakpipe.tracking.upload`), the run of the record takes its place.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from leakpipe.attacks.progress import Progress
from leakpipe.tracking.entries import as_tags, log_batches
from leakpipe.tracking.runs import KEY, KIND, LIVE, find_experiment, list_live_runs
from leakpipe.tracking.store import choose_uri, connect
from leakpipe.tracking.upload import name_run

if TYPE_CHECKING:
    from mlflow import MlflowClient

Curves = Mapping[str, Sequence[tuple[int, float]]]
NOTE = "Curves so far of an attack that runs, or was stopped and will go on. Its finished run takes this one's place."


def log_progress(running: Iterable[Progress], *, uri: str | None = None) -> int:
    """Add to MLflow what it lacks of the curves of running attacks; without any, it is not asked.

    Args:
        running: What their checkpoints hold (`leakpipe.attacks.progress.read_progress`).
        uri: Where MLflow is (`leakpipe.tracking.store.choose_uri`).

    Returns:
        How many points were added.

    Raises:
        MlflowUnreachableError: MLflow does not answer, or the address is none.
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
            run_ids = {run.data.tags[KEY]: run.info.run_id for run in list_live_runs(client, experiment_id)}
            for progress in group:
                key = name_run({"rule": "invert", "labels": progress.labels})
                run_ids[key], points = _log(client, experiment_id, run_ids.get(key), key, progress)
                added += points
    return added


def _log(
    client: "MlflowClient", experiment_id: str, run_id: str | None, key: str, progress: Progress
) -> tuple[str, int]:
    """Bring one attack's run up to date; returns its id and how many points were added."""
    logged = _logged(client, run_id, progress.curves) if run_id else {}
    if run_id and not _continues(progress.curves, logged):  # other settings or code: the attack began anew
        client.delete_run(run_id)
        run_id, logged = None, {}
    run_id = run_id or _create_run(client, experiment_id, key, progress)
    points = [
        (name, value, progress.saved, step)
        for name, curve in progress.curves.items()
        for step, value in curve[len(logged.get(name, ())) :]
    ]
    log_batches(client, run_id, points, {})
    return run_id, len(points)


def _logged(client: "MlflowClient", run_id: str, curves: Curves) -> Curves:
    """What MLflow has of curves; as a set, for two passes at once may log a point twice."""
    histories = {name: client.get_metric_history(run_id, name) for name in curves}
    return {name: sorted({(point.step, point.value) for point in history}) for name, history in histories.items()}


def _continues(curves: Curves, logged: Curves) -> bool:
    """Whether of each curve and what is logged of it, the shorter is the beginning of the longer."""
    return all(pair[0] == pair[1] for name in curves for pair in zip(curves[name], logged[name], strict=False))


def _create_run(client: "MlflowClient", experiment_id: str, key: str, progress: Progress) -> str:
    tags = {
        **progress.labels,
        KEY: key,
        KIND: LIVE,
        "rule": "invert",
        "mlflow.source.name": "leakpipe invert",
        "mlflow.note.content": NOTE,
    }
    return str(client.create_run(experiment_id, tags=as_tags(tags), run_name=key).info.run_id)
