"""`leakpipe verify` on a tiny experiment, untouched and spoilt in every way that it should notice."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from leakpipe.attacks.presets import resolve_settings
from leakpipe.cli.main import main
from leakpipe.experiment.reading import parse_params
from leakpipe.files.log import hash_file
from leakpipe.files.storage import read_arrays, write_arrays
from leakpipe.params.reading import read_yaml
from leakpipe.records.code_version import code_version
from leakpipe.records.verification.checks import find_difference
from tests.conftest import PROJECT

RESULTS = Path("results/tiny")
RECORDS = RESULTS / "records"
UPDATE = RESULTS / "federation/none/seed3/round1/site-9/update.safetensors"
RECONSTRUCTION = RESULTS / "inversion/none/seed3/round1/site-9/leakpipe.safetensors"
INVERT = "leakpipe.cli.invert"
ATTACK, FEDERATION = RECORDS / "invert/site-9.json", RECORDS / "federate/seed3.json"


def leakpipe(*arguments: object, code: int = 0) -> str:
    """Run a command; returns what it printed and its error, without progress."""
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    return done.stdout + "".join(line for line in done.stderr.splitlines() if line.startswith("Error: "))


def tiny_params() -> dict[str, Any]:
    """The default experiment cut to one federation of two clients and one attack of three iterations."""
    params = read_yaml(PROJECT / "params.yaml")
    clients = {name: params["federation"]["clients"][name] for name in ("site-9", "site-2")}
    params |= {"experiment": "tiny", "seeds": [3], "defenses": {"none": []}, "figures": ["rounds"]}
    params["data"] |= {"image_size": 16, "test": 20, "validation": 4, "public": 20}
    params["model"] = {"name": "convnet-bn", "widths": [4, 6], "strides": [1, 2]}
    params["federation"] |= {"rounds": 1, "captured_rounds": [1], "clients": clients}
    params["attacks"] = {"leakpipe": {"preset": "bn-cosine", "iterations": 3, "targets": {"site-9": {}}}}
    return {name: section for name, section in params.items() if name not in ("claims", "identifiability")}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the experiment ran, by the commands and file names of the pipeline."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copy(PROJECT / "CITATION.cff", folder)
    params = tiny_params()
    (folder / "params.yaml").write_text(json.dumps(params))  # JSON is YAML
    whole = parse_params(params, source="test").model_dump(mode="json")
    data, seed = RESULTS / "data", RESULTS / "data/seed3"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        attack = _attack_settings(params)
        leakpipe("prepare-data", "--images", json.dumps({"dataset": "lfw-faces", "image_size": 16}),
                 "--out", data / "images.safetensors", "--record", RECORDS / "prepare_data.json")  # fmt: skip
        leakpipe("split-data", "--data-params", json.dumps(whole["data"]),
                 "--clients", json.dumps(whole["federation"]["clients"]), "--images", data / "images.safetensors",
                 "--seed", 3, "--split", seed / "split.json", "--prior", seed / "prior.safetensors",
                 "--record", RECORDS / "split_data.json")  # fmt: skip
        labels = ["--label", "experiment=tiny", "--label", "defense=none", "--label", "seed=3"]
        leakpipe("federate", "--model", json.dumps(whole["model"]), "--federation", json.dumps(whole["federation"]),
                 "--defense", "[]", "--images", data / "images.safetensors", "--split", seed / "split.json",
                 "--attacked", "site-9", "--out-dir", RESULTS / "federation/none/seed3",
                 "--record", FEDERATION, *labels)  # fmt: skip
        leakpipe("invert", "--attack", json.dumps(attack), "--threat-model", json.dumps(whole["threat_model"]),
                 "--defense", "[]", "--name", "leakpipe", "--global-model", UPDATE.parent.parent / "global.safetensors",
                 "--update", UPDATE, "--out", RECONSTRUCTION, "--prior", seed / "prior.safetensors",
                 "--checkpoints", ".leakpipe/checkpoints", "--record", ATTACK, *labels,
                 "--label", "client=site-9", "--label", "attack=leakpipe")  # fmt: skip
        seal(params)
    return folder


def _attack_settings(params: dict[str, Any]) -> dict[str, Any]:
    attack = parse_params(params, source="test").attacks["leakpipe"]
    return resolve_settings(attack, "site-9").model_dump(mode="json")


def seal(params: dict[str, Any]) -> None:
    """Write the crate and params.json."""
    records = sorted(RECORDS.rglob("*.json"))
    leakpipe("crate", *records, "--params", json.dumps(params), "--citation", "CITATION.cff",
             "--workflow", "rule all:", "--workflow-out", RESULTS / "Snakefile",
             "--params-out", RESULTS / "params.json", "--out", RESULTS / "ro-crate-metadata.json")  # fmt: skip


@pytest.fixture
def results(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the results, to spoil; their project is the working folder."""
    shutil.copytree(made, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return RESULTS


def differs(*options: object) -> list[str]:
    """Returns what `verify` says differs, without running anything again unless `options` ask for it."""
    said = leakpipe("verify", RESULTS, *(options or ("--cells", 0)), code=1).splitlines()
    found = [line.removeprefix("Differs: ") for line in said if line.startswith("Differs: ")]
    assert said[-1].startswith(f"Error: {RESULTS}: {len(found)} thing")
    return found


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def flip_last_bit(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def test_untouched_results_pass_and_run_again_to_the_same_bytes(results: Path) -> None:
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    said = leakpipe("verify", results, "--params", "params.yaml", "--federation")
    assert said.count("the same bytes") == 2
    assert said.endswith(f"{results}: verified\n")
    assert before == {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}


def test_results_elsewhere_pass(results: Path) -> None:
    moved = results.rename("moved")
    assert leakpipe("verify", moved).endswith("moved: verified\n")


CRATE, SIDECAR = RESULTS / "ro-crate-metadata.json", UPDATE.with_suffix(".json")


def lose_records() -> None:
    ATTACK.unlink()
    FEDERATION.write_text(FEDERATION.read_text()[:50])


def replace_file_of_record_and_crate() -> None:
    """The record and the crate agree with the file; only its sidecar differs."""
    flip_last_bit(RECONSTRUCTION)
    change(ATTACK, lambda record: record["outputs"].update({str(RECONSTRUCTION): hash_file(RECONSTRUCTION)}))
    seal(tiny_params())


def run_federation_again() -> None:
    """Consistent in itself: the file, its sidecar and its job's record; but the attack read the file before."""
    _, *arguments = json.loads(FEDERATION.read_text())["command"]
    place = arguments.index("--federation") + 1
    arguments[place] = json.dumps({**json.loads(arguments[place]), "learning_rate": 0.02})
    leakpipe("federate", *arguments)
    seal(tiny_params())


def edit_iterations(path: Path) -> None:
    change(path, lambda params: params["attacks"]["leakpipe"].update(iterations=4))


def change_version() -> None:
    change(ATTACK, lambda record: record["environment"].update(code_version="0123456789abcdef", commit="c" * 40))
    seal(tiny_params())


@pytest.mark.usefixtures("results")
@pytest.mark.parametrize(
    ("spoil", "count", "said"),
    [
        (lambda: flip_last_bit(RECONSTRUCTION), 1, {RECONSTRUCTION: f"since invert wrote it, same size ({ATTACK})"}),
        (lambda: SIDECAR.write_bytes(b"{" * 100), 1, {SIDECAR: "since federate wrote it, 100 bytes instead of "}),
        (RECONSTRUCTION.unlink, 1, {RECONSTRUCTION: f"missing; invert wrote it ({ATTACK})"}),
        (lose_records, 4, {FEDERATION: "is not JSON", ATTACK: "missing; ro-crate", RESULTS: "which has no run record"}),
        (CRATE.unlink, 1, {CRATE: "cannot be read: No such file"}),
        (run_federation_again, 3, {UPDATE: "is not the file that invert read", FEDERATION: "rate: ran with 0.02"}),
        (replace_file_of_record_and_crate, 1, {RECONSTRUCTION: "is not the file that its sidecar leakpipe.json"}),
        (
            lambda: edit_iterations(RESULTS / "params.json"),
            3,
            {ATTACK: "iterations: ran with 3, params.json asks for 4"},
        ),
        (lambda: edit_iterations(Path("params.yaml")), 1, {"params.yaml": f"4, {RESULTS} was made with 3"}),
        (lambda: change(ATTACK, lambda record: record["params"].update(iterations=4)), 3, {ATTACK: "params: edited, "}),
        (change_version, 1, {ATTACK: f"0123456789abcdef (commit cccccccccccc), here it is {code_version(INVERT)}"}),
    ],
    ids=[
        *("flipped bit", "truncated sidecar", "missing file", "missing records", "no crate", "input made again"),
        *("another sidecar", "edited params.json", "edited params.yaml", "edited record", "another version"),
    ],
)
def test_what_was_spoilt_is_named(spoil: Callable[[], object], count: int, said: dict[Path | str, str]) -> None:
    spoil()
    found = differs("--cells", 0, "--params", "params.yaml")
    for where, what in said.items():
        assert [line for line in found if line.startswith(f"{where}: ") and what in line], found
    assert len(found) == count, found


@pytest.mark.usefixtures("results")
@pytest.mark.parametrize("entity", [{"@id": ["x"]}, {"@id": 3}, {"contentSize": "x"}, {"sha256": None, "@id": None}])
def test_a_crate_of_others(entity: dict[str, Any]) -> None:
    def spoil(crate: dict[str, Any]) -> None:
        next(each for each in crate["@graph"] if each["@type"] == "File").update(entity)

    change(CRATE, spoil)
    assert any("is not a crate that leakpipe wrote" in said for said in differs())


@pytest.mark.usefixtures("results")
@pytest.mark.parametrize("listed", [3, [3], ["a" * 300], ["x\0"], [["params.yaml"]]])
def test_parameter_files_that_a_record_cannot_have_listed(listed: object) -> None:
    """They are passed over: the record's own hash tells that it was edited."""
    record = json.loads(FEDERATION.read_text()) | {"rule": "report", "params": {"config_files": listed}}
    (RECORDS / "report.json").write_text(json.dumps(record))
    assert any("report.json: params: edited" in said for said in differs())


def test_other_numbers_in_the_same_environment_and_in_another(results: Path) -> None:
    """Images were made lighter and everything sealed again: only running the attack again can tell."""
    arrays, metadata = read_arrays(RECONSTRUCTION, "leakpipe/reconstruction")
    images = arrays["images"].copy()
    images += 0.25 * np.abs(images).max()
    write_arrays(RECONSTRUCTION, "leakpipe/reconstruction", {**arrays, "images": images}, metadata)
    both = (RECONSTRUCTION, RECONSTRUCTION.with_suffix(".json"))
    change(ATTACK, lambda record: record["outputs"].update({str(path): hash_file(path) for path in both}))
    seal(tiny_params())
    (found, sidecar) = differs("--cells", 1)[::-1]
    assert f"{RECONSTRUCTION}: run again it has other numbers (images: 0.2 apart)" in found
    assert found.endswith("in the same environment")
    assert sidecar.startswith(f"{both[1]}: run again it has other bytes but the same numbers")

    change(ATTACK, lambda record: record["environment"]["versions"].update(torch="1.0"))
    seal(tiny_params())
    (found,) = differs("--cells", 1)
    assert "; other environment: torch 1.0 → " in found
    said = leakpipe("verify", results, "--tolerance", 0.3)
    assert "within 0.3 (0.2)" in said
    assert "Note: another environment: torch 1.0 → " in said


@pytest.mark.usefixtures("results")
@pytest.mark.parametrize(
    ("command", "said"),
    [
        (None, "command: missing"),
        (["federate", "--out-dir", "x"], "command: missing"),
        (["invert", "--out", "/elsewhere/x.safetensors"], "command: writes to /elsewhere/x.safetensors"),
        (["invert", "--out=/elsewhere/x.safetensors"], "command: writes to /elsewhere/x.safetensors"),
        (["invert", "--record", "../x.json"], "command: writes to ../x.json"),
        (["invert", "--each", "x=../../secret", "--record", "{x}"], "command: has --each"),
        (["invert", "--each=x=/elsewhere", "--out", "{x}"], "command: has --each"),
        (["invert", "--network", "os:abort"], "command: has --network"),
        (["invert", "--network=os:abort"], "command: has --network"),
        (["invert", "--name", "leakpipe"], "its command fails when run again (exit code 2)"),
    ],
)
def test_commands_that_cannot_be_run_again(command: list[str] | None, said: str) -> None:
    change(ATTACK, lambda record: record.update(command=command))
    seal(tiny_params())
    (found,) = differs("--cells", 1)
    assert found.startswith(f"{ATTACK}: {said}")


def test_files_from_outside_are_left_to_the_command(results: Path) -> None:
    """Published weights, say: records have only their name."""
    change(ATTACK, lambda record: record["inputs"].update({"weights.pth": "0" * 64}))
    seal(tiny_params())
    assert "the same bytes" in leakpipe("verify", results)


def test_a_folder_without_results_is_one_sentence(tmp_path: Path) -> None:
    said = leakpipe("verify", tmp_path / "nothing", code=1)
    assert said == f"Error: {tmp_path}/nothing/params.json: cannot be read: No such file or directory"


def test_the_first_differing_field_is_named() -> None:
    assert find_difference({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}) == ("a.c", 2, 3)
    assert find_difference({"a": {"b": 1}}, {"a": {"b": 1, "new": 0}}) == ("a.new", "(missing)", 0)
    assert find_difference({"a": [1, 2]}, {"a": [1, 2]}) is None
