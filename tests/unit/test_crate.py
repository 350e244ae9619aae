"""The RO-Crate: what its specification demands, and that it says what is there."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from leakpipe.data.datasets import DATASETS
from leakpipe.errors import LeakpipeError
from leakpipe.files.log import hash_file
from leakpipe.files.storage import read_json, write_text
from leakpipe.params.reading import read_yaml
from leakpipe.records.crate import build_crate, read_crate
from leakpipe.records.reading import read_record
from leakpipe.records.run_record import record_run
from tests.conftest import PROJECT

FOLDER = Path("results/tiny")
RECORDS = [FOLDER / "records" / name for name in ("first.json", "second.json")]


@pytest.fixture(autouse=True)
def _made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two jobs: the second reads what the first wrote (its name needs quoting in a URI) and a file from outside."""
    monkeypatch.chdir(tmp_path)
    write_text(FOLDER / "params.json", "{}")
    write_text(FOLDER / "Snakefile", "rule all:\n")
    write_text(Path("outside.json"), "{}")
    with record_run(RECORDS[0], rule="first", labels={"seed": 1}, params={}, module="leakpipe.cli.invert"):
        write_text(FOLDER / "a file.json", "{}")
    with record_run(RECORDS[1], rule="second", labels={}, params={}, module="leakpipe.cli.invert"):
        read_json(FOLDER / "a file.json")
        read_json(Path("outside.json"))
        write_text(FOLDER / "table.csv", "a\n1\n")
        write_text(FOLDER / "page.html", "<p>")


def build() -> dict[str, Any]:
    records = {path: read_record(path) for path in RECORDS}
    data, citation = ("lfw-faces", DATASETS["lfw-faces"]), read_yaml(PROJECT / "CITATION.cff")
    return build_crate(FOLDER, records, FOLDER / "params.json", FOLDER / "Snakefile", data=data, citation=citation)


def by_id(crate: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entity["@id"]: entity for entity in crate["@graph"]}


def references(value: Any) -> list[str]:
    """Every {"@id": …} inside an entity."""
    if isinstance(value, list):
        return [found for part in value for found in references(part)]
    if isinstance(value, dict):
        return [value["@id"]] if set(value) == {"@id"} else references([*value.values()])
    return []


def jobs(crate: dict[str, Any]) -> list[dict[str, Any]]:
    actions = [entity for entity in crate["@graph"] if entity["@type"] == "CreateAction" and entity["@id"] != "#run"]
    assert len(actions) == 2
    return actions


def test_the_crate_is_what_the_specification_demands() -> None:
    """RO-Crate 1.1 and Process Run Crate 0.5, sentences with MUST (tests/metadata asks rocrate-validator)."""
    crate = build()
    entities = by_id(crate)
    assert len(entities) == len(crate["@graph"]), "every @id is there once"
    assert all("@type" in entity for entity in entities.values())
    descriptor, root = entities["ro-crate-metadata.json"], entities["./"]
    assert (descriptor["@type"], descriptor["about"]) == ("CreativeWork", {"@id": "./"})
    assert {"@id": "https://w3id.org/ro/crate/1.1"} in descriptor["conformsTo"]
    assert root["@type"] == "Dataset"
    assert all(root[name] for name in ("name", "description", "datePublished", "license"))
    dangling = {found for entity in entities.values() for found in references(entity)} - set(entities)
    assert dangling == {"https://w3id.org/ro/crate/1.1", "https://snakemake.github.io"}
    for action in jobs(crate):
        assert entities[action["instrument"]["@id"]]["@type"] == "SoftwareApplication"
        assert action["endTime"] >= action["startTime"]
    assert references(root["mentions"]) == [*(action["@id"] for action in jobs(crate)), "#run", "#orchestration"]


def test_every_job_is_a_step_of_the_workflow() -> None:
    """Provenance Run Crate 0.5: workflow → step → tool ← job ← control ← orchestration → run → workflow."""
    crate = build()
    entities = by_id(crate)
    workflow, run, orchestration = (entities[name] for name in ("Snakefile", "#run", "#orchestration"))
    assert references(entities["./"]["mainEntity"]) == references(run["instrument"]) == ["Snakefile"]
    assert references(orchestration["result"]) == ["#run"]
    assert [entities[name]["name"] for name in references(workflow["step"])] == ["first", "second"]
    controls = [entities[name] for name in references(orchestration["object"])]
    assert [control["object"]["@id"] for control in controls] == [action["@id"] for action in jobs(crate)]
    for control, action in zip(controls, jobs(crate), strict=True):
        step = entities[control["instrument"]["@id"]]
        assert step["workExample"] == action["instrument"]
        assert step["name"] == action["name"].split()[0]
        assert action["instrument"]["@id"] in references(workflow["hasPart"])
    assert (run["startTime"], run["endTime"]) == (jobs(crate)[0]["startTime"], jobs(crate)[1]["endTime"])
    assert references(run["result"]) == ["page.html", "records/first.json", "records/second.json", "table.csv"]


def test_every_file_is_listed_with_its_hash() -> None:
    entities = by_id(build())
    files = {name: entity for name, entity in entities.items() if "File" in entity["@type"]}
    on_disk = {str(path.relative_to(FOLDER)): path for path in FOLDER.rglob("*") if path.is_file()}
    assert {name.replace("%20", " ") for name in files} == set(on_disk)
    assert sorted(references(entities["./"]["hasPart"])) == sorted(files)
    for name, path in on_disk.items():
        entity = files[name.replace(" ", "%20")]
        assert entity["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert entity["contentSize"] == str(path.stat().st_size)
    read = {name: (sha256, size) for name, sha256, size in read_crate(build(), FOLDER)}
    assert read == {str(path): (hash_file(path), path.stat().st_size) for path in on_disk.values()}


def test_jobs_are_chained_by_their_files() -> None:
    first, second = jobs(build())
    assert (first["name"], second["name"]) == ("first seed=1", "second")
    assert references(first["object"]) == []
    assert references(first["result"]) == ["a%20file.json", "records/first.json"]
    assert references(second["object"]) == ["a%20file.json"], "files from outside the crate are left out"
    assert references(second["result"]) == ["page.html", "records/second.json", "table.csv"]


def test_the_same_records_give_the_same_crate() -> None:
    assert json.dumps(build()) == json.dumps(build())


def test_what_cannot_be_described_is_one_sentence() -> None:
    (FOLDER / "table.csv").unlink()
    with pytest.raises(LeakpipeError, match=r"table\.csv: cannot be read: .*; its run record lists it"):
        build()
    content = json.loads(RECORDS[0].read_text())
    del content["outputs"]
    RECORDS[0].write_text(json.dumps(content))
    with pytest.raises(LeakpipeError, match=r"first\.json: outputs: missing; the record is damaged"):
        build()
