"""Registry, seeds, run records."""

import hashlib
import json
from pathlib import Path

import pytest

from leakpipe.errors import LeakpipeError
from leakpipe.files.storage import read_json, write_text
from leakpipe.randomness import derive_seed
from leakpipe.records.code_version import code_version
from leakpipe.records.reading import read_record
from leakpipe.records.run_record import hash_params, record_run
from leakpipe.registry import Registry


def test_registry_is_strict() -> None:
    registry: Registry[int] = Registry("colour")
    registry.add("red", 1)
    registry.add("blue", 2)
    assert (list(registry), len(registry), registry["red"], "green" in registry) == (["red", "blue"], 2, 1, False)
    with pytest.raises(ValueError, match="colour 'red' is registered twice"):
        registry.add("red", 3)
    with pytest.raises(LeakpipeError, match="unknown colour 'green'; known: blue, red"):
        registry["green"]


def test_seeds_depend_on_every_name_and_on_nothing_else() -> None:
    assert derive_seed("noise", 1, "site-9") == derive_seed("noise", 1, "site-9") == 7424913697630801951
    assert len({derive_seed("noise", a, b) for a in range(30) for b in range(30)}) == 900
    assert all(0 <= derive_seed(i) < 2**63 for i in range(1000))


def test_a_run_record_says_what_happened(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    with record_run(path, rule="invert", labels={"seed": 1}, params={"b": 1, "a": [2]}) as run:
        run.add_curve("objective", [1, 5], [0.5, 0.25])
        run.metrics["ssim"] = 0.9
    record = read_record(path)
    assert record["curves"] == {"objective": [[1, 0.5], [5, 0.25]]}
    assert record["params_hash"] == hash_params({"a": [2], "b": 1})
    assert {
        "started",
        "seconds",
        "peak_memory_mib",
        "commit",
        "versions",
        "processor",
        "cores",
        "threads",
        "gpu",
    } <= set(record["environment"])
    assert record["environment"]["code_version"] == code_version("leakpipe.cli.invert")
    (tmp_path / "x.json").write_text(json.dumps({"kind": "other"}))
    with pytest.raises(LeakpipeError, match="kind: 'other', expected 'leakpipe/run-record'"):
        read_record(tmp_path / "x.json")


def test_a_record_lists_what_was_read_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in.json").write_text('{"a": 1}')
    with record_run(Path("r.json"), rule="invert", labels={}, params={}):
        read_json(Path("in.json"))
        write_text(tmp_path / "out.txt", "one")
        write_text(Path("checkpoint.txt"), "gone at the end")
        Path("checkpoint.txt").unlink()
    write_text(Path("later.txt"), "after the job")
    record = read_record(Path("r.json"))
    assert record["inputs"] == {"in.json": hashlib.sha256(b'{"a": 1}').hexdigest()}
    assert record["outputs"] == {"out.txt": hashlib.sha256(b"one").hexdigest()}


def test_a_failed_job_leaves_no_record(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    with pytest.raises(RuntimeError), record_run(path, rule="invert", labels={}, params={}):
        raise RuntimeError
    assert not path.exists()
