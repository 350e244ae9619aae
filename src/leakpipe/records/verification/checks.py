"""Checks that run nothing again: each returns one sentence for every deviation from the records."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from leakpipe.attacks.presets import resolve_settings, resolve_threat_model
from leakpipe.errors import LeakpipeError
from leakpipe.experiment.cells import list_cells
from leakpipe.files.storage import read_json, sidecar_path
from leakpipe.params.experiment import Params
from leakpipe.records.code_version import code_version
from leakpipe.records.crate import CRATE
from leakpipe.records.run_record import hash_params
from leakpipe.records.verification.results import Record, Results

MISSING = "(missing)"


def check_files(results: Results, hashes: Mapping[str, str]) -> list[str]:
    """Returns a sentence for each file that is missing, or is not the one that a job wrote or read; each file once.

    Args:
        results: Parameters, records and crate of the folder.
        hashes: SHA-256 of all its files (`Results.hash_files`).
    """
    found = dict(results.unreadable)
    for name, said in (
        *_check_outputs(results, hashes),
        *_check_seal(results, hashes),
        *_check_inputs(results, hashes),
        *_check_sidecars(results, hashes),
    ):
        found.setdefault(name, said)
    return [found[name] for name in sorted(found)]


def _check_outputs(results: Results, hashes: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Files that jobs wrote."""
    for place, record in results.records.items():
        for name, sha256 in record["outputs"].items():
            path = results.place(name)
            if name not in hashes:
                yield name, f"{path}: missing; {record['rule']} wrote it ({results.place(place)})"
            elif hashes[name] != sha256:
                size = _compare_size(results, name)
                yield name, f"{path}: changed since {record['rule']} wrote it{size} ({results.place(place)})"


def _check_seal(results: Results, hashes: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Files that the crate lists, records and parameters among them."""
    for name, sealed in results.sealed.items():
        path = results.place(name)
        if name not in hashes:
            yield name, f"{path}: missing; {CRATE} lists it"
        elif hashes[name] != sealed.sha256:
            yield name, f"{path}: changed since {CRATE} was written{_compare_size(results, name)}"


def _check_inputs(results: Results, hashes: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Files that jobs read: if one was made again, what was made from the old one is stale."""
    for place, record in results.records.items():
        for name, sha256 in record["inputs"].items():
            if hashes.get(name, sha256) != sha256:
                said = f"{results.place(name)}: is not the file that {record['rule']} read ({results.place(place)})"
                yield name, said


def _check_sidecars(results: Results, hashes: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Sidecars, which must describe the tensors that they stand beside."""
    for name in (name for name in hashes if name.endswith(".safetensors")):
        path = results.place(name)
        try:
            described = read_json(sidecar_path(path)).get("sha256")
        except LeakpipeError as error:
            yield str(sidecar_path(Path(name))), str(error)
            continue
        if described != hashes[name]:
            yield name, f"{path}: is not the file that its sidecar {sidecar_path(path).name} describes"


def _compare_size(results: Results, name: str) -> str:
    """Describes how the size differs from the one that the crate lists."""
    if name not in results.sealed:
        return ""
    before, now = results.sealed[name].bytes, results.place(name).stat().st_size
    return ", same size" if now == before else f", {now} bytes instead of {before}"


def check_params(results: Results) -> list[str]:
    """Returns a sentence for each record with edited or other parameters than params.json, and each missing record."""
    return [
        *(
            f"{results.place(name)}: params: edited, their hash is {found}, params_hash says {record['params_hash']}"
            for name, record in results.records.items()
            if (found := hash_params(record["params"])) != record["params_hash"]
        ),
        *_check_jobs(results),
    ]


def _check_jobs(results: Results) -> Iterator[str]:
    """Compares the federations and attacks that the parameters ask for with those that ran."""
    ran = {_job(record["rule"], record["labels"]): name for name, record in results.records.items()}
    for rule, labels, asked in _expected_jobs(results.params):
        name = ran.get(_job(rule, labels))
        if name is None:
            said = " ".join(f"{key}={value}" for key, value in labels.items())
            yield f"{results.place(str(results.root))}: params.json asks for {rule} {said}, which has no run record"
        elif difference := find_difference(asked, results.records[name]["params"]):
            field, expected, found = difference
            yield f"{results.place(name)}: params.{field}: ran with {found!r}, params.json asks for {expected!r}"


def _job(rule: str, labels: Mapping[str, Any]) -> tuple[str, ...]:
    return (rule, *(f"{name}={labels[name]}" for name in sorted(labels) if name != "experiment"))


def _expected_jobs(params: Params) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Yields rule, labels and parameters of every federation and attack."""
    whole = params.model_dump(mode="json")
    for defense in params.defenses:
        asked = {"model": whole["model"], "federation": whole["federation"], "defense": whole["defenses"][defense]}
        for seed in params.seeds:
            yield "federate", {"defense": defense, "seed": seed}, asked
    for cell in list_cells(params):
        attack = params.attacks[cell.attack]
        settings = resolve_settings(attack, cell.client).model_dump(mode="json")
        granted = resolve_threat_model(attack, params.threat_model).model_dump(mode="json")
        yield "invert", vars(cell), {**settings, "threat_model": granted}


def check_config(results: Results, config: Params, *, source: str) -> list[str]:
    """Compares the parameters of this checkout (`config`, read from `source`) with those of the results."""
    difference = find_difference(config.model_dump(mode="json"), results.params.model_dump(mode="json"))
    if difference is None:
        return []
    field, asked, found = difference
    return [f"{source}: {field}: {asked!r}, {results.folder} was made with {found!r}"]


def find_difference(asked: Any, found: Any, field: str = "") -> tuple[str, Any, Any] | None:
    """Returns the first field in which two sets of parameters differ, and both values; None if they are equal."""
    if not (isinstance(asked, Mapping) and isinstance(found, Mapping)):
        return None if asked == found else (field, asked, found)
    for key in [*asked, *(key for key in found if key not in asked)]:
        inner = f"{field}.{key}" if field else str(key)
        difference = find_difference(asked.get(key, MISSING), found.get(key, MISSING), inner)
        if difference:
            return difference
    return None


def check_code(results: Results) -> list[str]:
    """Returns a sentence for each command and version of its code that made results and is not the present one."""
    jobs: dict[tuple[str, str, str], list[str]] = {}
    for name, record in results.records.items():
        code = record["environment"]
        jobs.setdefault((code["module"], code["code_version"], str(code["commit"])), []).append(name)
    found = []
    for (module, recorded, commit), names in jobs.items():
        try:
            present = code_version(module)
        except ValueError:
            present = MISSING
        if present != recorded:
            others = f" and {len(names) - 1} more" if len(names) > 1 else ""
            found.append(
                f"{results.place(names[0])}{others}: made by {module} in code version {recorded} "
                f"(commit {commit[:12]}), here it is {present}"
            )
    return found


def differing_environment(recorded: Record, present: Record) -> list[str]:
    """Returns what numbers may depend on and differs between two environments, each as `name recorded → present`."""
    before, after = _flat(recorded), _flat(present)
    return [
        f"{name} {before[name]} → {after[name]}"
        for name in sorted(before)
        if before[name] != after.get(name, before[name])
    ]


def _flat(environment: Record) -> dict[str, Any]:
    named = {name: environment[name] for name in ("processor", "gpu", "python") if name in environment}
    return {**named, **environment["versions"]}
