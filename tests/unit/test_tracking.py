"""Run records in MLflow: content, repeated and interrupted passes, servers that fail, credentials."""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from sqlalchemy.engine import make_url

from leakpipe.cli.main import main
from leakpipe.errors import LeakpipeError
from leakpipe.files.storage import write_text
from leakpipe.records.run_record import record_run
from leakpipe.tracking import runs as tracking_runs
from leakpipe.tracking.artifacts import UNSTORED
from leakpipe.tracking.runs import KEY, PARENT, find_experiment, remove_doubles
from leakpipe.tracking.store import MlflowUnreachableError, database_file, newest_experiment, without_credentials
from leakpipe.tracking.upload import TrackingSummary, find_records, track_records

INVERT_LABELS = {"attack": "bn-aware", "client": "site-9", "defense": "none", "experiment": "tiny", "seed": "0"}


@pytest.fixture(autouse=True)
def _no_address_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A new store that two processes opened at once, and their summaries (making a store takes seconds: do it once)."""
    folder = tmp_path_factory.mktemp("store")
    record = write_record(folder / "record.json", rule="collect", labels={"experiment": "raced"})
    call = [sys.executable, "-m", "leakpipe", "track", str(record), "--uri", f"sqlite:///{folder}/mlflow.db", "--out"]
    processes = [subprocess.Popen([*call, str(folder / f"{name}.json")]) for name in "ab"]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    return folder / "mlflow.db", [json.loads((folder / f"{name}.json").read_text()) for name in "ab"]


@pytest.fixture
def uri(raced: tuple[Path, Any], tmp_path: Path) -> str:
    shutil.copy(raced[0], tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three records of one experiment, and JSON files that are none."""
    records = tmp_path / "records"
    write_record(records / "prepare_data.json", rule="prepare_data", labels={"experiment": "tiny"})
    for seed in ("0", "1"):
        with record_run(
            records / f"invert/seed{seed}.json",
            rule="invert",
            labels={**INVERT_LABELS, "seed": seed},
            params={"iterations": 1200, "optimizer": {"name": "adam", "betas": [0.9, 0.99]}, "prior": None},
        ) as run:
            run.add_curve("round1/objective", range(1, 1201), [1 / step for step in range(1, 1201)])
            run.add_curve("ssim", [5], [0.5])
            run.metrics.update({"ssim": 0.25, "images": 8})
            write_text(tmp_path / "faces.png", "pixels")
            run.artifacts += [str(tmp_path / "faces.png"), str(tmp_path / "gone.png")]
    (records / "sidecar.json").write_text('{"kind": "leakpipe/update"}')
    return records


def write_record(path: Path, *, rule: str, labels: dict[str, str], **params: Any) -> Path:
    with record_run(path, rule=rule, labels=labels, params=params):
        pass
    return path


def track(folder: Path, uri: str, **more: Any) -> TrackingSummary:
    return track_records(find_records([folder]), experiment="tiny", uri=uri, **more)


def runs_of(uri: str) -> dict[str, Run]:
    """Returns the runs by name; fails if two share one."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("leakpipe/tiny")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    named = {str(run.info.run_name): run for run in runs}
    assert len(named) == len(runs)
    return named


def artifacts_of(uri: str, run: Run, path: str | None = None) -> list[str]:
    return [file.path for file in MlflowClient(uri).list_artifacts(run.info.run_id, path)]


def test_every_record_becomes_one_run_below_one_parent(folder: Path, uri: str) -> None:
    summary = track(folder, uri, params={"seeds": [0, 1], "data": {"size": 8}})
    runs = runs_of(uri)
    parent = next(run for run in runs.values() if run.info.run_id == summary.parent_run_id)
    assert set(runs) - {parent.info.run_name} == {
        "prepare_data",
        "invert none seed0 site-9 bn-aware",
        "invert none seed1 site-9 bn-aware",
    }
    assert str(parent.info.run_name).startswith("tiny/")
    assert parent.data.params == {"seeds": "[0, 1]", "data.size": "8"}
    assert (summary.runs_added, summary.runs_already_there) == (3, 0)
    for run in runs.values():
        assert run.info.status == "FINISHED"
        if run is not parent:
            assert run.data.tags[PARENT] == summary.parent_run_id


def test_a_run_holds_what_its_record_holds(folder: Path, uri: str) -> None:
    summary = track(folder, uri)
    run = runs_of(uri)["invert none seed0 site-9 bn-aware"]
    record = find_records([folder])[folder / "invert/seed0.json"]
    assert run.data.params == {
        "iterations": "1200",
        "optimizer.name": "adam",
        "optimizer.betas": "[0.9, 0.99]",
        "prior": "null",
    }
    tags = run.data.tags
    for name, value in {**INVERT_LABELS, "rule": "invert", "leakpipe.key": record["id"]}.items():
        assert tags[name] == value
    assert tags["params_hash"] == record["params_hash"]
    assert tags["commit"] == str(record["environment"]["commit"])
    assert tags["uncommitted_changes"] == json.dumps(record["environment"]["uncommitted_changes"])
    curve = MlflowClient(uri).get_metric_history(run.info.run_id, "round1/objective")
    assert [(point.step, point.value) for point in curve] == [(step, 1 / step) for step in range(1, 1201)]
    assert run.data.metrics["images"] == 8
    assert run.data.metrics["ssim"] == 0.25, "the final value counts, also where a curve has its name"
    assert run.info.end_time - run.info.start_time == round(record["environment"]["seconds"] * 1000)
    assert artifacts_of(uri, run) == ["faces.png"]
    assert "gone.png is missing" in tags["leakpipe.notes"]
    assert sum("gone.png is missing" in note for note in summary.notes) == 2


def test_the_parent_holds_headline_numbers_figures_and_tables(folder: Path, uri: str, tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    files = [tmp_path / "leakage.csv", tmp_path / "figures/leakage.svg"]
    for file in files:
        file.write_text("content")
    metrics: dict[str, Any] = {"leakage": {"bn-aware": {"ssim_max": 0.5, "none": None}}, "fingerprint": "abc"}
    summary = track(folder, uri, params={"a": 1}, metrics=metrics, artifacts=files)
    parent = MlflowClient(uri).get_run(str(summary.parent_run_id))
    assert parent.data.metrics == {"leakage.bn-aware.ssim_max": 0.5}
    experiment = MlflowClient(uri).get_experiment(str(summary.experiment_id))
    assert json.loads(experiment.tags["mlflow.sharedViewState.leakpipe"])["selectedColumns"][-1] == (
        "metrics.`leakage.bn-aware.ssim_max`"
    )
    assert newest_experiment(uri) == summary.experiment_id
    assert parent.data.tags["fingerprint"] == "abc"
    assert artifacts_of(uri, parent) == ["figures", "leakage.csv"]
    assert artifacts_of(uri, parent, "figures") == ["figures/leakage.svg"]

    metrics["fingerprint"] = "def"
    again = track(folder, uri, params={"a": 1}, metrics=metrics, artifacts=files)
    assert again.parent_run_id == summary.parent_run_id
    assert MlflowClient(uri).get_run(str(summary.parent_run_id)).data.tags["fingerprint"] == "def"


def test_a_second_pass_adds_nothing(folder: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = track(folder, uri, params={"a": 1}, metrics={"ssim": 0.5})
    before = {name: run.to_dictionary() for name, run in runs_of(uri).items()}
    monkeypatch.setattr(tracking_runs, "RUNS_PER_PAGE", 2)
    monkeypatch.delattr(MlflowClient, "create_run")
    second = track(folder, uri, params={"a": 1}, metrics={"ssim": 0.5})
    assert (second.runs_added, second.runs_already_there) == (0, 3)
    assert second.parent_run_id == first.parent_run_id
    assert {name: run.to_dictionary() for name, run in runs_of(uri).items()} == before


@pytest.mark.parametrize(("method", "call"), [("log_batch", 1), ("log_artifact", 2), ("set_terminated", 3)])
def test_a_pass_that_was_cut_short_is_completed_by_the_next(
    folder: Path, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, call: int
) -> None:
    calls = 0
    work = getattr(MlflowClient, method)

    def work_then_die(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            if method != "set_terminated":
                work(*arguments, **named)
            raise KeyboardInterrupt
        return work(*arguments, **named)

    more: dict[str, Any] = {"params": {"a": 1}, "metrics": {"ssim": 0.5}, "artifacts": [tmp_path / "faces.png"]}
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, method, work_then_die)
        with pytest.raises(KeyboardInterrupt):
            track(folder, uri, **more)
    assert any(run.info.status != "FINISHED" for run in runs_of(uri).values())

    track(folder, uri, **more)
    runs = runs_of(uri)
    assert len(runs) == 4
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    run = runs["invert none seed1 site-9 bn-aware"]
    assert len(MlflowClient(uri).get_metric_history(run.info.run_id, "round1/objective")) == 1200
    assert artifacts_of(uri, run) == ["faces.png"]
    assert track(folder, uri, **more).runs_added == 0


def name_artifacts(folder: Path, *names: Path) -> Path:
    """A record of somebody else that names files as its artifacts, and says that its job wrote `table.csv`."""
    record = folder / "records/collect.json"
    with record_run(record, rule="collect", labels={"experiment": "tiny"}, params={}) as run:
        write_text(folder / "table.csv", "a\n1\n")
        run.artifacts += [*map(str, names)]
    return record


def test_a_record_has_no_other_files_uploaded_than_its_own(tmp_path: Path, uri: str) -> None:
    folder, secret = tmp_path / "results/theirs", tmp_path / "secret"
    secret.write_text("a key")
    (folder / "own").mkdir(parents=True)
    (folder / "own/images.bin").write_text("private")
    links = {"link": secret, "folder-link": tmp_path, "fine-link": folder / "table.csv", "circle": folder / "circle"}
    for name, target in links.items():
        (folder / name).symlink_to(target)
    os.mkfifo(folder / "pipe")
    said = {
        secret: "lies outside",
        folder / "link": "lies outside",
        folder / "folder-link/secret": "lies outside",
        folder / "../../secret": "lies outside",
        folder / "own": "is not a file",
        folder / "pipe": "is not a file",
        folder / "circle": "is missing",
        folder / "own/images.bin": "is not the file that its job wrote",
    }
    summary = track(name_artifacts(folder, *said, folder / "table.csv", folder / "fine-link"), uri)
    (run,) = [run for run in runs_of(uri).values() if run.info.run_name == "collect"]
    assert artifacts_of(uri, run) == ["fine-link", "table.csv"]
    for path, why in said.items():
        assert [note.count(f"artifact {path} {why}") for note in summary.notes if f"artifact {path} " in note] == [1]


def test_a_copy_of_what_a_job_wrote_is_not_uploaded_from_elsewhere(tmp_path: Path, uri: str) -> None:
    """A published record tells the SHA-256 of private images; another record may not have them fetched by it."""
    (tmp_path / "elsewhere.csv").write_text("a\n1\n")
    (note,) = track(name_artifacts(tmp_path / "theirs", tmp_path / "elsewhere.csv"), uri).notes
    assert "lies outside" in note


def test_notes_show_control_characters(tmp_path: Path, uri: str) -> None:
    record = name_artifacts(tmp_path / "theirs", Path("\x1b[31mred"))
    said = CliRunner().invoke(main, ["track", str(record), "--uri", uri])
    assert said.exit_code == 0
    assert "\x1b" not in said.output
    assert "\\x1b[31mred is missing" in said.output


def test_a_store_that_takes_no_artifacts_costs_nothing_else(folder: Path, uri: str, tmp_path: Path) -> None:
    (tmp_path / "mlartifacts").write_text("a file where a folder should be")
    more: dict[str, Any] = {"params": {"a": 1}, "metrics": {"ssim": 0.5}, "artifacts": [tmp_path / "faces.png"]}
    summary = track(folder, uri, **more)
    runs = runs_of(uri)
    assert (len(runs), {run.info.status for run in runs.values()}) == (4, {"FINISHED"})
    assert summary.runs_added == 3
    assert [note.count("faces.png") for note in summary.notes if "could not be stored" in note] == [1]
    run = runs["invert none seed1 site-9 bn-aware"]
    assert run.data.metrics["ssim"] == 0.25
    assert run.data.tags[UNSTORED] == str(tmp_path / "faces.png")
    assert UNSTORED not in runs["prepare_data"].data.tags

    (tmp_path / "mlartifacts").unlink()
    again = track(folder, uri, **more)
    assert (again.runs_added, again.parent_run_id) == (0, summary.parent_run_id)
    assert not any("could not be stored" in note for note in again.notes)
    for run in runs_of(uri).values():
        assert UNSTORED not in run.data.tags
        assert artifacts_of(uri, run) == ([] if run.info.run_name == "prepare_data" else ["faces.png"])


def test_a_dead_store_is_tried_three_times(tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / f"{number}.svg" for number in range(9)]
    for file in files:
        file.touch()
    tried: list[str] = []

    def fail(_client: MlflowClient, _run_id: str, path: str, _folder: str | None) -> None:
        tried.append(path)
        raise RuntimeError("no bucket")  # what a cloud's package raises is of no known kind

    monkeypatch.setattr(MlflowClient, "log_artifact", fail)
    record = write_record(tmp_path / "r.json", rule="collect", labels={"experiment": "tiny"})
    (note,) = track(record, uri, artifacts=files).notes
    assert tried == [str(file) for file in files[:3]]
    assert all(note.count(str(file)) == 1 for file in files)
    assert "no bucket" in note


def test_runs_follow_a_parent_that_was_deleted_and_made_again(folder: Path, uri: str) -> None:
    dead = track(folder, uri, params={"a": 1}).parent_run_id
    MlflowClient(uri).delete_run(str(dead))
    again = track(folder, uri, params={"a": 1})
    assert again.parent_run_id != dead
    assert again.runs_added == 0
    runs = runs_of(uri)
    assert {run.data.tags.get(PARENT) for run in runs.values()} == {None, again.parent_run_id}
    note = runs[next(name for name in runs if name.startswith("tiny/"))].data.tags["mlflow.note.content"]
    assert note == "The whole experiment: 3 jobs."


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("o'br {v} o?k h#y%41*[1];\u00e9 e\u0301", "sqlite:///mlflow.db"),
        ("h#y %41;new\nline", "sqlite:///{folder}/mlflow.db"),
    ],
)
def test_a_store_in_a_folder_of_any_name(tmp_path: Path, name: str, address: str) -> None:
    folder = tmp_path / name
    record = write_record(folder / "r.json", rule="collect", labels={"experiment": "tiny"})
    (folder / "table.csv").touch()
    call = [sys.executable, "-m", "leakpipe", "track", record.name, "--artifact", "table.csv"]
    uri = address.format(folder=folder)
    for _ in range(2):
        done = subprocess.run([*call, "--uri", uri], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert "0 runs added, 1 already there" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == [name], "nothing lies outside"
    assert sorted(path.name for path in folder.iterdir()) == [
        *("mlartifacts", "mlflow.db", "mlflow.db.lock", "r.json", "table.csv")
    ]
    assert len(list(folder.glob("mlartifacts/**/table.csv"))) == 1


@pytest.mark.parametrize("name", ["plain", "h#y", "%41", "a b;c", "x?timeout=3", "\u00e9"])
def test_a_sqlite_address_names_the_file_that_sqlalchemy_opens(tmp_path: Path, name: str) -> None:
    uri = f"sqlite:///{tmp_path}/{name}"
    assert database_file(uri) == Path(str(make_url(uri).database))


def test_other_parameters_get_a_parent_of_their_own(folder: Path, uri: str) -> None:
    first = track(folder, uri, params={"a": 1})
    write_record(folder / "collect.json", rule="collect", labels={"experiment": "tiny"})
    second = track(folder, uri, params={"a": 2})
    assert second.runs_added == 1
    runs = runs_of(uri)
    assert runs["prepare_data"].data.tags["mlflow.parentRunId"] == first.parent_run_id
    assert runs["collect"].data.tags["mlflow.parentRunId"] == second.parent_run_id != first.parent_run_id
    note = MlflowClient(uri).get_run(str(second.parent_run_id)).data.tags["mlflow.note.content"]
    assert "4 jobs; 3 of them ran before" in note


def test_without_parameters_new_runs_go_below_the_newest_parent(folder: Path, uri: str) -> None:
    pipeline = track(folder, uri, params={"a": 1})
    write_record(folder / "collect.json", rule="collect", labels={"experiment": "tiny"})
    by_hand = track(folder, uri)
    assert (by_hand.parent_run_id, by_hand.runs_added) == (pipeline.parent_run_id, 1)
    assert MlflowClient(uri).get_run(str(pipeline.parent_run_id)).data.params == {"a": "1"}


def test_names_and_values_that_mlflow_would_refuse(tmp_path: Path, uri: str) -> None:
    many = {f"p{index}": index for index in range(250)}
    labels = {"experiment": "tiny", "long": "x" * 9000}
    path = write_record(tmp_path / "r.json", rule="invert", labels=labels, long="y" * 7000, **{"σ (units)": 1}, **many)
    track(path, uri)
    run = next(run for run in runs_of(uri).values() if run.data.params)
    assert run.data.params.keys() == {"long", "σ _units_", *many}
    assert run.data.params["long"].startswith("y" * 5000)
    assert run.data.tags["long"].startswith("x" * 5000)


def test_names_of_others_cannot_keep_records_from_mlflow(tmp_path: Path, uri: str) -> None:
    """MLflow refuses parameters and metrics whose name is no path that leads down."""
    names = ["", ".", "..", "../x", "a//b", "/a", "a/", "./a", "x" * 300, "a\nb", "a\0b", "/" * 300]
    labels = {"experiment": "tiny", "mlflow.runName": "forged", KEY: "forged"}
    path = tmp_path / "r.json"
    with record_run(path, rule="collect", labels=labels, params=dict.fromkeys(names, 1)) as run:
        run.metrics |= dict.fromkeys(names, 0.5)
        run.curves |= {f"{name}!": [(1, 0.5)] for name in names}
    track(path, uri)
    (found,) = [run for run in runs_of(uri).values() if run.data.params]
    assert {"_", "_.", "_..", "_../x", "a/_/b", "_/a", "a/_", "_./a"} <= found.data.params.keys() & found.data.metrics
    assert len(found.data.params) >= len(names) - 1  # of two names that become one, one is kept
    assert (found.info.run_name, found.data.tags[KEY]) == ("collect forged forged", find_records([path])[path]["id"])


def test_two_processes_may_make_the_store_at_once(raced: tuple[Path, list[dict[str, Any]]]) -> None:
    database, summaries = raced
    assert sorted(summary["runs_added"] for summary in summaries) == [0, 1]
    assert summaries[0]["parent_run_id"] == summaries[1]["parent_run_id"]
    assert list(database.parent.glob(".*")) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "other"}, "kind: 'other'"),
        ({"id": None}, "id: 'None': Input should be a valid string"),
    ],
)
def test_files_that_are_no_run_records(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    file = write_record(tmp_path / "r.json", rule="collect", labels={})
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(LeakpipeError, match=said):
        find_records([file])


def test_a_folder_without_records(tmp_path: Path) -> None:
    with pytest.raises(LeakpipeError, match="no run record found"):
        find_records([tmp_path])


def add_run(client: MlflowClient, experiment: str, key: str | None, *, parent: str = "", finished: bool = True) -> str:
    tags = ({KEY: key} if key else {}) | ({PARENT: parent} if parent else {})
    run_id = str(client.create_run(experiment, tags=tags).info.run_id)
    if finished:
        client.set_terminated(run_id, "FINISHED")
    return run_id


def test_one_finished_run_of_each_key_stays_and_inherits_the_children(uri: str) -> None:
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


def test_an_experiment_is_created_once_and_restored(uri: str) -> None:
    client = MlflowClient(uri)
    first = find_experiment(client, uri, "leakpipe/tiny")
    client.delete_experiment(first)
    assert find_experiment(client, uri, "leakpipe/tiny") == first
    assert client.get_experiment(first).lifecycle_stage == "active"


def test_an_experiment_that_cannot_be_created(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: Any, **_named: Any) -> str:
        raise MlflowException("no room")

    monkeypatch.setattr(MlflowClient, "create_experiment", refuse)
    with pytest.raises(MlflowException, match="no room"):
        find_experiment(MlflowClient(uri), uri, "leakpipe/tiny")


# --- MLflow does not answer


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def foreign_server() -> Iterator[HTTPServer]:
    """A web server that is not MLflow; it keeps the authorization of the last request."""

    class Page(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.server.authorization = self.headers["Authorization"]  # type: ignore[attr-defined]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def foreign_port(foreign_server: HTTPServer) -> int:
    return foreign_server.server_port


@pytest.mark.parametrize(
    ("scheme", "port"),
    [("http", "silent_port"), ("http", "closed_port"), ("http", "foreign_port"), ("postgresql", "closed_port")],
)
def test_a_server_that_does_not_answer_costs_seconds(
    folder: Path, request: pytest.FixtureRequest, scheme: str, port: str
) -> None:
    clock = time.perf_counter()
    with pytest.raises(MlflowUnreachableError) as caught:
        track(folder, f"{scheme}://127.0.0.1:{request.getfixturevalue(port)}/")
    assert time.perf_counter() - clock < 15
    assert "127.0.0.1" in str(caught.value)
    assert "nothing is lost" in str(caught.value)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("foo://bar", "no such kind of address"),
        ("nonsense", "no runs in folders"),
        ("file:///tmp/runs", "no runs in folders"),
        ("http://", "cannot be used"),
        ("http://[::1", "not an address"),
        ("http://127.0.0.1:port", "not an address"),
        ("sqlite://", "sqlite:///FILE"),
        ("sqlite:///:memory:", "sqlite:///FILE"),
        ("sqlite:///{folder}/no/such/folder/mlflow.db", "folder that exists"),
        ("sqlite:///{folder}/file/mlflow.db", "folder that exists"),
        ("sqlite:///{folder}/file", "not a database"),
        ("sqlite:///{folder}/o?k/mlflow.db", "change into the folder and give sqlite:///mlflow.db"),
    ],
)
def test_addresses_that_are_none(folder: Path, tmp_path: Path, address: str, said: str) -> None:
    (tmp_path / "file").write_text("not a database, but text" * 100)
    clock = time.perf_counter()
    with pytest.raises(MlflowUnreachableError, match=said) as caught:
        track(folder, address.format(folder=tmp_path))
    assert time.perf_counter() - clock < 15
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "http://user:geheim@{host}/",
        "http://user:ge%2Fheim@{host}/path",
        "http://geheim@{host}",
        "http://u/s:er:geheim@{host}",
        "postgresql://user:geheim@{host}/db",
        "postgresql://{host}/db?password=geheim",
        "foo://user:geheim@{host}",
        "user:geheim@{host}",
    ],
)
def test_credentials_are_never_shown(folder: Path, tmp_path: Path, closed_port: int, address: str) -> None:
    address = address.format(host=f"127.0.0.1:{closed_port}")
    assert "heim" not in without_credentials(address)
    result = call(folder, "--uri", address, "--out", str(tmp_path / "tracked.json"), "--best-effort")
    assert result.exit_code == 0
    assert "heim" not in result.output + (tmp_path / "tracked.json").read_text()


def test_credentials_in_the_address_reach_the_server(folder: Path, foreign_server: HTTPServer) -> None:
    before = dict(os.environ)
    with pytest.raises(MlflowUnreachableError, match="is not MLflow"):
        track(folder, f"http://me:ge%2Fheim@127.0.0.1:{foreign_server.server_port}")
    assert foreign_server.authorization == "Basic " + base64.b64encode(b"me:ge/heim").decode()  # type: ignore[attr-defined]
    assert dict(os.environ) == before


def test_addresses_without_credentials_are_shown_whole() -> None:
    for address in ("sqlite:////data/me@work/mlflow.db", "http://127.0.0.1:5000/path", "nonsense"):
        assert without_credentials(address) == address


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["track", *map(str, arguments)])


def test_best_effort_says_so_and_goes_on(folder: Path, tmp_path: Path, closed_port: int) -> None:
    out = tmp_path / "tracked.json"
    arguments = (folder, "--uri", f"http://127.0.0.1:{closed_port}", "--out", out, "--attempt", "3")
    strict = call(*arguments)
    assert strict.exit_code == 1
    assert strict.output.count("does not answer") == 1
    assert not out.exists()
    tolerant = call(*arguments, "--best-effort")
    assert tolerant.exit_code == 0
    assert "nothing is lost" in tolerant.output
    summary = json.loads(out.read_text())
    assert (summary["reached"], summary["runs_added"], summary["attempt"]) == (False, 0, 3)


def test_best_effort_does_not_forgive_bad_records(tmp_path: Path) -> None:
    assert call(tmp_path, "--best-effort").exit_code == 1


def test_the_address_comes_from_the_option_then_the_environment(
    folder: Path, uri: str, tmp_path: Path, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "tracked.json"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    result = call(folder, "--out", out)
    assert result.exit_code == 0, result.output
    assert "tiny: 3 runs added" in result.output
    assert json.loads(out.read_text())["uri"] == uri
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port}")
    assert call(folder, "--uri", uri).exit_code == 0


def test_several_experiments_need_a_name(folder: Path, uri: str) -> None:
    write_record(folder / "other.json", rule="collect", labels={"experiment": "other"})
    result = call(folder, "--uri", uri)
    assert result.exit_code == 1
    assert "--experiment" in result.output


def test_importing_leakpipe_does_not_import_mlflow() -> None:
    modules = "leakpipe.tracking.live, leakpipe.attacks, leakpipe.cli.main"
    code = f"import sys, {modules}; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
