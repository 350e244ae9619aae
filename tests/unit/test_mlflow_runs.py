"""Doubles that passes at once leave on a server, and experiments that somebody else makes first."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from leakpipe.mlflow_runs import KEY, PARENT, find_experiment, remove_doubles
from leakpipe.mlflow_store import _create_database


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store (making one takes seconds)."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    _create_database(path)
    return path


@pytest.fixture
def uri(store: Path, tmp_path: Path) -> str:
    shutil.copy(store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


def add_run(client: MlflowClient, experiment: str, key: str | None, *, parent: str = "", finished: bool = True) -> str:
    tags = ({KEY: key} if key else {}) | ({PARENT: parent} if parent else {})
    run_id = str(client.create_run(experiment, tags=tags).info.run_id)
    if finished:
        client.set_terminated(run_id, "FINISHED")
    return run_id


def test_one_finished_run_of_each_key_stays_and_takes_over_the_children(uri: str) -> None:
    client = MlflowClient(uri)
    experiment = find_experiment(client, uri, "leakpipe/tiny")
    parents = sorted(add_run(client, experiment, "tiny") for _ in range(3))
    jobs = {parent: add_run(client, experiment, f"job of {parent}", parent=parent) for parent in parents}
    twins = sorted(add_run(client, experiment, "twin", parent=parent) for parent in parents)
    in_progress = add_run(client, experiment, "twin", parent=parents[1], finished=False)
    without_key = [add_run(client, experiment, None) for _ in range(2)]

    replaced = remove_doubles(client, experiment)

    stays, *others = parents
    assert replaced == dict.fromkeys(others, stays) | dict.fromkeys(twins[1:], twins[0])
    left = {run.info.run_id: run for run in client.search_runs([experiment])}
    assert left.keys() == {stays, *jobs.values(), twins[0], in_progress, *without_key}
    assert {left[job].data.tags[PARENT] for job in (*jobs.values(), twins[0], in_progress)} == {stays}
    assert remove_doubles(client, experiment) == {}


def test_an_experiment_that_somebody_else_made_first(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = MlflowClient(uri)
    create = MlflowClient.create_experiment

    def be_late(self: MlflowClient, *arguments: Any, **named: Any) -> str:
        create(self, *arguments, **named)
        return create(self, *arguments, **named)

    monkeypatch.setattr(MlflowClient, "create_experiment", be_late)
    found = find_experiment(client, uri, "leakpipe/tiny")
    assert client.get_experiment(found).name == "leakpipe/tiny"


def test_an_experiment_that_cannot_be_made(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: Any, **_named: Any) -> str:
        raise MlflowException("no room")

    monkeypatch.setattr(MlflowClient, "create_experiment", refuse)
    with pytest.raises(MlflowException, match="no room"):
        find_experiment(MlflowClient(uri), uri, "leakpipe/tiny")
