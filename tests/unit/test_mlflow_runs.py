"""Doubles that passes at once leave on a server, and experiments that somebody else makes first."""

from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from leakpipe.tracking.runs import KEY, PARENT, find_experiment, remove_doubles


def add_run(client: MlflowClient, experiment: str, key: str | None, *, parent: str = "", finished: bool = True) -> str:
    tags = ({KEY: key} if key else {}) | ({PARENT: parent} if parent else {})
    run_id = str(client.create_run(experiment, tags=tags).info.run_id)
    if finished:
        client.set_terminated(run_id, "FINISHED")
    return run_id


def test_one_finished_run_of_each_key_stays_and_takes_over_the_children(mlflow_uri: str) -> None:
    client = MlflowClient(mlflow_uri)
    experiment = find_experiment(client, mlflow_uri, "leakpipe/tiny")
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


def test_an_experiment_that_somebody_else_made_first(mlflow_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = MlflowClient(mlflow_uri)
    create = MlflowClient.create_experiment

    def be_late(self: MlflowClient, *arguments: Any, **named: Any) -> str:
        create(self, *arguments, **named)
        return create(self, *arguments, **named)

    monkeypatch.setattr(MlflowClient, "create_experiment", be_late)
    found = find_experiment(client, mlflow_uri, "leakpipe/tiny")
    assert client.get_experiment(found).name == "leakpipe/tiny"


def test_an_experiment_that_cannot_be_made(mlflow_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: Any, **_named: Any) -> str:
        raise MlflowException("no room")

    monkeypatch.setattr(MlflowClient, "create_experiment", refuse)
    with pytest.raises(MlflowException, match="no room"):
        find_experiment(MlflowClient(mlflow_uri), mlflow_uri, "leakpipe/tiny")
