"""Run records of others, or damaged: one sentence, whatever a field holds."""

import json
from pathlib import Path
from typing import Any

import pytest

from leakpipe.errors import LeakpipeError
from leakpipe.records.reading import read_record
from leakpipe.records.run_record import record_run

ATTACK = {"cell": {"client": "site-9", "round": 1}, "seconds": 1.5, "explained": None, "notes": []}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with record_run(tmp_path / "r.json", rule="invert", labels={"seed": "1"}, params={"a": [1]}) as run:
        run.add_curve("ssim", [1, 2], [0.5, 1])
        run.metrics["images"] = 8
        run.artifacts.append("results/x.png")
        run.details["attacks"] = [ATTACK]
    return tmp_path / "r.json"


def change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_a_job_wrote_is_read_as_it_was_written(path: Path) -> None:
    assert read_record(path) == json.loads(path.read_text())


FIELDS = "id rule labels params params_hash command curves metrics artifacts details inputs outputs environment"


@pytest.mark.parametrize("field", FIELDS.split())
def test_every_field_is_needed_and_of_its_kind(field: str, path: Path) -> None:
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in whole.items() if name != field}))
    with pytest.raises(LeakpipeError, match=rf"r.json: {field}: missing; the record is damaged"):
        read_record(path)
    for value in (3.5, "\0" if field in ("rule", "command") else 7):
        path.write_text(json.dumps(whole | {field: value}))
        with pytest.raises(LeakpipeError, match=rf"r.json: {field}[.:].*run its job again$"):
            read_record(path)


@pytest.mark.parametrize("field", ["started", "seconds", "versions", "module", "code_version", "commit", "processor"])
def test_so_is_every_field_of_the_environment(field: str, path: Path) -> None:
    environment = json.loads(path.read_text())["environment"]
    for changed in (environment | {field: [1]}, {name: environment[name] for name in environment if name != field}):
        change(path, environment=changed)
        with pytest.raises(LeakpipeError, match=rf"environment.{field}: "):
            read_record(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"artifacts": ["a" * 300]},
        {"artifacts": ["a\0b"]},
        {"inputs": {"": "x"}},
        {"outputs": {"x": 3}},
        {"curves": {"ssim": [[1, "0.5"]]}},
        {"curves": {"ssim": [[2**70, 0.5]]}},
        {"curves": {"ssim": [[1, 0.5, 2]]}},
        {"metrics": {"ssim": True}},
        {"labels": {"seed": [1]}},
        {"details": {"attacks": [{**ATTACK, "seconds": -1}]}},
        {"details": {"attacks": {"cell": {}}}},
        {"rule": "../x"},
    ],
)
def test_values_that_later_stages_could_not_use(changes: dict[str, Any], path: Path) -> None:
    change(path, **changes)
    with pytest.raises(LeakpipeError, match=rf"r.json: {next(iter(changes))}[.:]"):
        read_record(path)


@pytest.mark.parametrize("started", ["yesterday", "2026-01-01T00:00:00", "0001-01-01T00:00:00+00:00", "", 0])
def test_times_must_have_a_zone(started: object, path: Path) -> None:
    environment = json.loads(path.read_text())["environment"]
    change(path, environment=environment | {"started": started})
    with pytest.raises(LeakpipeError, match=r"environment\.started: "):
        read_record(path)
