"""params.yaml, data lists, splits and run records."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from leakpipe.audit.inputs import load_audit
from leakpipe.data.datalists import PARTS, read_datalist
from leakpipe.data.datasets import DATASETS
from leakpipe.data.files import load_split
from leakpipe.errors import LeakpipeError
from leakpipe.experiment.reading import load_params, parse_params
from leakpipe.records.crate import build_crate
from leakpipe.records.reading import read_record
from leakpipe.records.run_record import record_run
from leakpipe.report.runs import summarize_runs
from leakpipe.tracking.artifacts import why_left_out
from leakpipe.tracking.upload import find_records, name_run
from tests.conftest import PROJECT
from tests.fuzz.changes import damaged, edited, refused, same

PARAMS = (PROJECT / "params.yaml").read_text(encoding="utf-8")
VALID = yaml.safe_load(PARAMS)
# PyYAML in C, for what this file itself writes and reads: ten times as fast, and another parser than leakpipe's.
DUMPER, LOADER = getattr(yaml, "CSafeDumper", yaml.SafeDumper), getattr(yaml, "CSafeLoader", yaml.SafeLoader)
ENTRY = {"image": "a/b.png", "label": [1]}
LISTS = {"training": [ENTRY, {"image": "a/c.png", "label": 0}], "validation": [], "testing": [ENTRY], "other": 3}
WORK = {"authors": [{"name": "a"}], "license": "MIT", "title": "t"}
SPLIT = {"seed": 3, "clients": {"a": [1, 2], "b": [0]}, "validation": [3], "test": [4], "public": [5, 6]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("texts")


def keeps(read: Any, written: Any) -> bool:
    """Tells whether the value read holds every value that was written; null may be a default or leave an entry out."""
    if isinstance(written, dict) and isinstance(read, dict):
        return all(value is None or (key in read and keeps(read[key], value)) for key, value in written.items())
    if isinstance(written, list) and isinstance(read, list):
        return len(written) == len(read) and all(map(keeps, read, written))
    return written is None or same(read, written)


def check_params(found: Any, content: Any) -> None:
    """The value read holds every value that was written, or it was refused."""
    if not isinstance(found, LeakpipeError):
        read = found.model_dump(mode="json")
        for section, written in content.items():
            assert keeps(read[section], written), section


@given(data=st.data())
def test_values_of_params(data: st.DataObject) -> None:
    """Without YAML, which takes six times as long as all checks of the values."""
    content = data.draw(edited(VALID))
    check_params(refused(lambda: parse_params(content, source="params.yaml")), content)


@given(data=st.data())
def test_params(folder: Path, data: st.DataObject) -> None:
    path = folder / "params.yaml"
    if data.draw(st.booleans()):
        text = yaml.dump(data.draw(edited(VALID)), Dumper=DUMPER).encode()
    else:
        text = data.draw(damaged(PARAMS.encode()))
    path.write_bytes(text)
    found = refused(lambda: load_params(path))
    check_params(found, {} if isinstance(found, LeakpipeError) else yaml.load(text, LOADER))


AUDIT = {
    "audit": "tiny",
    "updates": {"one": {"before": "before.pth", "after": "after.pth", "client": "a"}},
    "network": {"architecture": {"name": "convnet-bn", "widths": [3, 4], "strides": [2, 2]}, "classes": 3},
    "images": {"size": 16, "channels": "gray"},
    "client": {"images": 2, "batch_size": 1, "epochs": 1, "labels": [0, 1], "truth": "people"},
    "clients": {"a": {"images": 1}},
    "training": {"learning_rate": 0.05, "optimizer": {"kind": "adam"}, "clipping": {"kind": "norm", "limit": 1.0}},
    "defense": [{"kind": "gaussian", "sigma0": 1}],
    **{"public": "people", "candidates": "people", "minutes": 0.5, "what_if": ["noise-5"]},
}


@given(data=st.data())
def test_audits(folder: Path, data: st.DataObject) -> None:
    path, content = folder / "audit.yaml", data.draw(edited(AUDIT))
    for name in ("before.pth", "after.pth", "people/1.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    text = json.dumps(content, ensure_ascii=data.draw(st.booleans())).encode()
    path.write_bytes(data.draw(damaged(text)) if data.draw(st.booleans()) else text)
    found = refused(lambda: load_audit(path))
    if not isinstance(found, LeakpipeError):
        read, written = found.model_dump(mode="json"), yaml.load(path.read_bytes(), LOADER)
        for section in written.keys() - {"updates", "client", "public", "candidates"}:  # which hold paths
            assert keeps(read[section], written[section]), section


@given(data=st.data())
def test_datalists(folder: Path, data: st.DataObject) -> None:
    path = folder / "site-1.json"
    text = json.dumps(data.draw(edited(LISTS))).encode()
    path.write_bytes(data.draw(damaged(text)) if data.draw(st.booleans()) else text)
    found = refused(lambda: read_datalist(path))
    if isinstance(found, LeakpipeError):
        return
    content = json.loads(path.read_bytes())
    for part in PARTS:
        written = [(entry["image"], entry["label"]) for entry in content.get(part, [])]
        assert len(written) == len(found[part])
        for (image, label), entry in zip(written, found[part], strict=True):
            assert Path(image) == Path(entry.image)
            assert same(entry.label, label[0] if isinstance(label, list) else label)


@pytest.fixture(scope="module")
def record(folder: Path) -> tuple[Path, bytes]:
    path = folder / "results/x/records/invert.json"
    with record_run(path, rule="invert", labels={"experiment": "x", "seed": "1"}, params={"a": [1]}) as run:
        run.add_curve("ssim", [1, 2], [0.5, 1])
        run.metrics["images"] = 8
        run.artifacts.append("results/x/table.csv")
        run.details["attacks"] = [{"cell": {"seed": 1}, "seconds": 1.5, "explained": None, "notes": []}]
    return path, path.read_bytes()


@given(data=st.data())
def test_run_records(folder: Path, record: tuple[Path, bytes], data: st.DataObject) -> None:
    """A record that is read can be used by all that reads records."""
    path, whole = record
    text = json.dumps(data.draw(edited(json.loads(whole)))).encode()
    path.write_bytes(data.draw(damaged(text)) if data.draw(st.booleans()) else text)
    found = refused(lambda: read_record(path))
    if isinstance(found, LeakpipeError):
        return
    assert json.loads(path.read_bytes()) == found
    assert find_records([path]) == {path: found}
    assert name_run(found).startswith(found["rule"])
    summarize_runs([found])
    for artifact in found["artifacts"]:
        assert why_left_out(Path(artifact), (path, found))
    faces = ("lfw-faces", DATASETS["lfw-faces"])
    refused(lambda: build_crate(folder, {path: found}, path, path, data=faces, citation=WORK))


@given(data=st.data())
def test_splits(folder: Path, data: st.DataObject) -> None:
    path = folder / "split.json"
    text = json.dumps(data.draw(edited(SPLIT))).encode()
    path.write_bytes(data.draw(damaged(text)) if data.draw(st.booleans()) else text)
    found = refused(lambda: load_split(path))
    if not isinstance(found, LeakpipeError):
        split, seed = found
        content = json.loads(path.read_bytes())
        kept = {name: content[name] for name in ("seed", "clients", "validation", "test", "public")}
        assert same({"seed": seed, **split.to_json()}, kept)
