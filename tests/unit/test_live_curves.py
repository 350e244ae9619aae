"""Curves of running attacks: read from checkpoints, shown in MLflow, and replaced by the finished run."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.entities import Run

from leakpipe.attacks.checkpoint import Checkpoint
from leakpipe.attacks.progress import Progress, read_progress
from leakpipe.cli import watch as watch_module
from leakpipe.cli.main import main
from leakpipe.records.run_record import record_run
from leakpipe.tracking.live import log_progress
from leakpipe.tracking.runs import KEY, KIND, LIVE, find_experiment
from leakpipe.tracking.upload import find_records, track_records
from tests.unit.attacking import observe_small, searching

LABELS = {"experiment": "tiny", "defense": "none", "seed": "0", "client": "site-9", "attack": "bn-aware"}
NAME = "invert none seed0 site-9 bn-aware"


def save(path: Path, labels: Mapping[str, str], **curves: list[float]) -> None:
    state = searching(observe_small(images=1)).start()
    Checkpoint(path, key="k", labels=labels).save(replace(state, curves=curves))


def progress(*values: float, saved: int = 1000, term: str = "round1/objective", **labels: str) -> Progress:
    return Progress({**LABELS, **labels}, {term: list(enumerate(values, start=1))}, saved)


def runs_of(uri: str, experiment: str = "tiny") -> list[Run]:
    client = MlflowClient(uri)
    return list(client.search_runs([client.get_experiment_by_name(f"leakpipe/{experiment}").experiment_id]))


def logged(uri: str, run: Run, term: str = "round1/objective") -> list[tuple[int, float, int]]:
    history = MlflowClient(uri).get_metric_history(run.info.run_id, term)
    return sorted((point.step, point.value, point.timestamp) for point in history)


def test_progress_is_what_checkpoints_hold(tmp_path: Path) -> None:
    path = tmp_path / "none" / "bn-aware" / "round12.safetensors"
    save(path, LABELS, iteration=[1.0, 5.0], objective=[0.5, 0.25], total_variation=[0.125, 1 / 3])
    save(tmp_path / "without-experiment.safetensors", {"attack": "dlg"}, iteration=[1.0], objective=[1.0])
    save(tmp_path / "without-points.safetensors", LABELS)
    (tmp_path / "cut.json").write_text('{"kind": "leakpipe/check')
    (tmp_path / "other.json").write_text('{"kind": "leakpipe/update"}')
    saved = path.with_suffix(".json").stat().st_mtime_ns // 1_000_000
    curves = {"round12/objective": [(1, 0.5), (5, 0.25)], "round12/total_variation": [(1, 0.125), (5, 1 / 3)]}
    assert read_progress(tmp_path) == [Progress(LABELS, curves, saved)]
    assert read_progress(tmp_path / "not-yet") == []


def test_a_pass_adds_what_is_missing(mlflow_uri: str) -> None:
    assert log_progress([progress(0.5, 1 / 3, saved=1000)], uri=mlflow_uri) == 2
    assert log_progress([progress(0.5, 1 / 3, saved=1000)], uri=mlflow_uri) == 0
    assert log_progress([progress(0.5, 1 / 3, 0.1, saved=2000)], uri=mlflow_uri) == 1
    assert log_progress([progress(0.75, term="round2/objective", saved=3000)], uri=mlflow_uri) == 1
    (run,) = runs_of(mlflow_uri)
    assert (run.info.run_name, run.info.status, run.data.tags["rule"]) == (NAME, "RUNNING", "invert")
    assert LABELS.items() <= run.data.tags.items()
    assert logged(mlflow_uri, run) == [(1, 0.5, 1000), (2, 1 / 3, 1000), (3, 0.1, 2000)]
    assert logged(mlflow_uri, run, "round2/objective") == [(1, 0.75, 3000)]


def test_each_attack_has_a_run_in_its_experiment(mlflow_uri: str) -> None:
    two_rounds = [progress(0.5), progress(0.5, term="round2/objective")]
    running = [*two_rounds, progress(0.5, seed="1"), progress(0.5, experiment="other")]
    assert log_progress(running, uri=mlflow_uri) == 4
    assert sorted(run.info.run_name for run in runs_of(mlflow_uri)) == [NAME, NAME.replace("seed0", "seed1")]
    assert [run.info.run_name for run in runs_of(mlflow_uri, "other")] == [NAME]


def test_a_continued_attack_that_lags_behind_what_was_shown_changes_nothing(mlflow_uri: str) -> None:
    log_progress([progress(0.5, 0.25, 0.125)], uri=mlflow_uri)
    assert log_progress([progress(0.5, 0.25, saved=2000)], uri=mlflow_uri) == 0
    assert [point[:2] for point in logged(mlflow_uri, runs_of(mlflow_uri)[0])] == [(1, 0.5), (2, 0.25), (3, 0.125)]


def test_an_attack_that_began_anew_gets_a_new_run(mlflow_uri: str) -> None:
    log_progress([progress(0.5, 0.25, 0.125)], uri=mlflow_uri)
    (old,) = runs_of(mlflow_uri)
    assert log_progress([progress(0.5, 0.2)], uri=mlflow_uri) == 2
    (new,) = runs_of(mlflow_uri)
    assert new.info.run_id != old.info.run_id
    assert [point[:2] for point in logged(mlflow_uri, new)] == [(1, 0.5), (2, 0.2)]


def test_without_running_attacks_mlflow_is_not_asked(tmp_path: Path) -> None:
    assert log_progress([], uri=f"sqlite:///{tmp_path}/gone/mlflow.db") == 0


def test_the_finished_run_takes_the_place_of_all_live_ones(tmp_path: Path, mlflow_uri: str) -> None:
    log_progress([progress(0.5), progress(0.5, seed="1")], uri=mlflow_uri)
    client = MlflowClient(mlflow_uri)
    experiment = find_experiment(client, mlflow_uri, "leakpipe/tiny")
    client.create_run(experiment, tags={KEY: NAME, KIND: LIVE})  # by another `watch` at the same moment
    with record_run(tmp_path / "record.json", rule="invert", labels=LABELS, params={}) as record:
        record.add_curve("round1/objective", [1, 2], [0.5, 0.25])
    for _ in range(2):
        track_records(find_records([tmp_path / "record.json"]), experiment="tiny", uri=mlflow_uri)
        jobs = [run for run in runs_of(mlflow_uri) if run.data.tags[KIND] != "experiment"]
        assert {(run.info.run_name, run.info.status) for run in jobs} == {
            (NAME, "FINISHED"),
            (NAME.replace("seed0", "seed1"), "RUNNING"),
        }
        assert len(jobs) == 2


def test_watch_warns_once_of_an_mlflow_that_is_away_and_goes_on_until_ctrl_c(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "checkpoints" / "round1.safetensors", LABELS, iteration=[1.0], objective=[0.5])
    database, waited = tmp_path / "later" / "mlflow.db", []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            database.parent.mkdir()
            shutil.copy(empty_store, database)
        if len(waited) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(watch_module.time, "sleep", wait)
    uri = f"sqlite:///{database}"
    result = CliRunner().invoke(main, ["watch", str(tmp_path / "checkpoints"), "--uri", uri, "--every", "7"])
    assert (result.exit_code, waited) == (0, [7, 7, 7, 7])
    start, warning, news, look, end = result.output.splitlines()
    assert start.startswith("Watching the attacks in ")
    assert f"`MLFLOW_TRACKING_URI={uri} make ui`" in look
    assert "/#/experiments/1/runs?workflowType=machine_learning" in look
    assert warning.startswith(f"Warning: MLflow at {uri} cannot be used: ")
    assert warning.endswith("every 7 seconds.")
    assert news.endswith(" new points: 1")
    assert end.startswith("Stopped watching")


def test_one_look_at_an_mlflow_that_is_away_fails(tmp_path: Path) -> None:
    save(tmp_path / "round1.safetensors", LABELS, iteration=[1.0], objective=[0.5])
    uri = f"sqlite:///{tmp_path}/gone/mlflow.db"
    result = CliRunner().invoke(main, ["watch", str(tmp_path), "--uri", uri, "--once"])
    assert result.exit_code == 1
    assert "Error: MLflow at" in result.output
