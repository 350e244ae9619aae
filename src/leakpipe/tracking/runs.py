"""The runs of one MLflow experiment: found by key, and rid of doubles."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from leakpipe.tracking.store import VIEW_TAG, artifact_folder, database_file

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

KEY, KIND, PARENT = "leakpipe.key", "leakpipe.kind", "mlflow.parentRunId"
LIVE = "live"  # kind of the runs that show attacks in progress (`leakpipe.tracking.live`)
RUNS_PER_PAGE = 1000
# The kind tells MLflow's page that these are runs of training, not traces of language models.
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": "One row per set of parameters, with the headline numbers and the report; + in front of it "
    "opens its jobs. To compare attacks, search for tags.rule = 'score' and choose the columns attack, defense and "
    "those of the clients; tags.rule = 'invert' has their curves, which the chart view draws together.",
    VIEW_TAG: '{"selectedColumns": ["attributes.`Source`", "attributes.`Duration`"]}',
}


def find_experiment(client: "MlflowClient", uri: str, name: str) -> str:
    """Returns the id of the experiment, which is created or, if it was deleted, restored."""
    from mlflow.exceptions import MlflowException

    database = database_file(uri)
    folder = artifact_folder(database) / name.replace("/", "-") if database else None
    try:
        return str(client.create_experiment(name, folder.as_uri() if folder else None, EXPERIMENT_TAGS))
    except MlflowException:
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def search_runs(client: "MlflowClient", experiment_id: str) -> Iterator["Run"]:
    """Yields the runs of the experiment that are not deleted, newest first."""
    token: str | None = ""
    while token is not None:
        page = client.search_runs([experiment_id], max_results=RUNS_PER_PAGE, page_token=token or None)
        yield from page
        token = page.token or None


def by_key(runs: Iterable["Run"]) -> dict[str, "Run"]:
    """Returns the runs by key, in their order; of several with one key, a finished one."""
    keyed: dict[str, Run] = {}
    for run in runs:
        key = run.data.tags.get(KEY)
        if key and (key not in keyed or run.info.status == "FINISHED"):
            keyed[key] = run
    return keyed


def remove_doubles(client: "MlflowClient", experiment_id: str) -> dict[str, str]:
    """Keeps one finished run of each key, the one with the smallest id, which inherits the others' children.

    A server cannot be locked, so two passes over the same records may each add what the other has not added yet, and
    every pass ends with this. Unfinished runs stay, so that no pass loses the run it is filling; the pass that ends
    last sees all runs.

    Returns:
        Ids of the runs that were kept, by those of the removed ones.
    """
    runs, alike = list(search_runs(client, experiment_id)), defaultdict(list)
    for run in runs:
        if KEY in run.data.tags and run.info.status == "FINISHED":
            alike[run.data.tags[KEY]].append(run.info.run_id)
    replaced = {double: kept for kept, *doubles in map(sorted, alike.values()) for double in doubles}
    for run in runs:
        heir = replaced.get(run.data.tags.get(PARENT, ""))
        if heir and run.info.run_id not in replaced:
            client.set_tag(run.info.run_id, PARENT, heir)
    for run_id in replaced:
        client.delete_run(run_id)
    return replaced
