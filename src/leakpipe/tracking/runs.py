"""The runs of one MLflow experiment by their key, and which of them are taken away: doubles, and what is outdated.

A sqlite store is held alone (`mlflow_store.connect`); a server is not. There, passes over the same records may each
add what the other has not added yet. So every pass clears up at its end. It takes away finished runs only, so that no
work in progress loses its run; the pass that ends last sees all of them, and which one stays depends on nothing but
their ids.

A run of the kind LIVE shows the curves of an attack that is not finished (`mlflow_live`). Its key is the name of the
run that the attack's record will make, which takes its place.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from leakpipe.tracking.entries import clean_name
from leakpipe.tracking.store import artifact_folder, database_file

if TYPE_CHECKING:
    from mlflow import MlflowClient

KEY, KIND, PARENT = "leakpipe.key", "leakpipe.kind", "mlflow.parentRunId"
LIVE = "live"
RUNS_PER_PAGE = 1000
# What a reader meets first. The kind says that these are runs of training, not traces of language models.
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": "One row per set of parameters, with the headline numbers and the report; + in front of it "
    "opens its jobs. To compare attacks, search for tags.rule = 'score' and choose the columns attack, defense and "
    "those of the clients; tags.rule = 'invert' has their curves, which the chart view draws together.",
}


def find_experiment(client: "MlflowClient", uri: str, name: str) -> str:
    """Id of the experiment: found, restored or made."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        database = database_file(uri)
        folder = artifact_folder(database) / clean_name(name.replace("/", "-")) if database else None
        location = folder.as_uri() if folder else None
        try:
            return str(client.create_experiment(name, artifact_location=location, tags=EXPERIMENT_TAGS))
        except MlflowException:  # made by somebody else since we asked?
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def list_runs(client: "MlflowClient", experiment_id: str) -> dict[str, Any]:
    """All runs of the experiment by their key, newest first; of several with one key a finished one."""
    runs: dict[str, Any] = {}
    for run in _search_runs(client, experiment_id):
        key = run.data.tags.get(KEY)
        if key and (key not in runs or run.info.status == "FINISHED"):
            runs[key] = run
    return runs


def list_live_runs(client: "MlflowClient", experiment_id: str) -> list[Any]:
    """The runs of attacks that are not finished, newest first."""
    return list(_search_runs(client, experiment_id, f"tags.`{KIND}` = '{LIVE}'"))


def remove_live_runs(client: "MlflowClient", experiment_id: str, keys: Collection[str]) -> None:
    """Remove the live runs of these keys."""
    for run in list_live_runs(client, experiment_id):
        if run.data.tags.get(KEY) in keys:
            client.delete_run(run.info.run_id)


def remove_doubles(client: "MlflowClient", experiment_id: str) -> dict[str, str]:
    """Leave one of the finished runs of each key, the one with the smallest id; it takes over the others' children.

    Returns:
        Ids of what stayed, by that of what was removed.
    """
    runs = list(_search_runs(client, experiment_id))
    replaced = _find_doubles(runs)
    for run in runs:
        heir = replaced.get(run.data.tags.get(PARENT, ""))
        if heir and run.info.run_id not in replaced:
            client.set_tag(run.info.run_id, PARENT, heir)
    for run_id in replaced:
        client.delete_run(run_id)
    return dict(replaced)


def _find_doubles(runs: Iterable[Any]) -> Mapping[str, str]:
    alike: dict[str, list[str]] = defaultdict(list)
    for run in runs:
        if KEY in run.data.tags and run.info.status == "FINISHED":
            alike[run.data.tags[KEY]].append(run.info.run_id)
    return {double: first for first, *doubles in map(sorted, alike.values()) for double in doubles}


def _search_runs(client: "MlflowClient", experiment_id: str, query: str = "") -> Iterator[Any]:
    """All runs of the experiment that are not deleted and fit MLflow's query, newest first."""
    token: str | None = None
    while True:
        page = client.search_runs([experiment_id], query, max_results=RUNS_PER_PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
