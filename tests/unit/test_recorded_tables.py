"""results/recorded.json says which code made the recorded tables, and docs/verify.md shows it (`--fix` writes both)."""

import hashlib
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from leakpipe.records.code_version import code_version
from tests.conftest import PROJECT

RESULTS, PAGE = PROJECT / "results", PROJECT / "docs" / "verify.md"
RECORD = RESULTS / "recorded.json"
BLOCK = re.compile(r"(<!-- recorded: .*? -->\n).*?(<!-- /recorded -->)", flags=re.DOTALL)
TABLES = [
    *("claims-cxr/claims.json", "claims/claims.json", "attacks/attacks.csv", "cxr/attacks.csv", "ablation/attacks.csv"),
    *("deep-resnet18/attacks.csv", "deep-resnet20/attacks.csv", "defenses/defenses.csv"),
]
STAGES = ["federate", "invert", "score", "judge"]
UNKNOWN = "not recorded"


def describe(table: str, results: Path, known: Mapping[str, Any]) -> dict[str, Any]:
    """SHA-256 of a table, and by the run records beside it the day and the code of each stage; else as known before."""
    digest = hashlib.sha256((results / table).read_bytes()).hexdigest()
    records = (results / table).parent / "records"
    judged = json.loads((records / "judge.json").read_text()) if (records / "judge.json").exists() else {"outputs": {}}
    if digest not in judged["outputs"].values():
        return dict(known) if known.get("sha256") == digest else {"sha256": digest, "made": None, "code": {}}
    versions: dict[str, set[str]] = {stage: set() for stage in STAGES}
    for path in records.rglob("*.json"):
        record = json.loads(path.read_text())
        versions.get(record["rule"], set()).add(record["environment"]["code_version"])
    made = judged["environment"]["started"][:10]
    return {"sha256": digest, "made": made, "code": {stage: sorted(found) for stage, found in versions.items()}}


def list_outdated(recorded: Mapping[str, Any]) -> list[str]:
    """The tables that the present code has not made, as far as that is recorded."""
    present = {stage: [code_version(f"leakpipe.cli.{stage}")] for stage in STAGES}
    return [table for table, made in recorded.items() if made["code"] != present]


def show(recorded: Mapping[str, Any]) -> str:
    lines = [f"| table | made on | {' | '.join(f'`{stage}`' for stage in STAGES)} |", "|---" * (2 + len(STAGES)) + "|"]
    for table, made in recorded.items():
        code = [", ".join(f"`{version}`" for version in made["code"].get(stage, [])) or UNKNOWN for stage in STAGES]
        lines.append(f"| `{table}` | {made['made'] or UNKNOWN} | {' | '.join(code)} |")
    return "\n".join(lines) + "\n"


def test_every_recorded_table_is_said_to_be_made_by_some_code(request: pytest.FixtureRequest) -> None:
    """Another code than the present one is a warning: most edits change no number, and hours of work tell which."""
    known = json.loads(RECORD.read_text())
    there = [table for table in TABLES if (RESULTS / table).exists()]
    recorded = {table: describe(table, RESULTS, known.get(table, {})) for table in there}
    text = PAGE.read_text()
    fresh, found = BLOCK.subn(lambda match: match[1] + show(recorded) + match[2], text)
    assert found == 1
    if request.config.getoption("--fix"):
        RECORD.write_text(json.dumps(recorded, indent=1) + "\n")
        PAGE.write_text(fresh)
    assert json.loads(RECORD.read_text()) == recorded, "run: pytest tests/unit/test_recorded_tables.py --fix"
    assert PAGE.read_text() == fresh, "run: pytest tests/unit/test_recorded_tables.py --fix"
    for table in list_outdated(recorded):
        warnings.warn(f"results/{table} is not known to be made by the present code", stacklevel=1)


def test_code_is_read_from_run_records_and_kept_while_the_table_stays(tmp_path: Path) -> None:
    table = tmp_path / "x" / "claims.json"
    (table.parent / "records" / "federate").mkdir(parents=True)
    table.write_text("{}")
    unknown = describe("x/claims.json", tmp_path, {})
    assert (unknown["made"], unknown["code"]) == (None, {})
    for name, rule in (("judge", "judge"), ("federate/a", "federate"), ("federate/b", "pretrain")):
        environment = {"started": "2026-11-29T11:15:05", "code_version": f"code of {name}"}
        outputs = {str(table): unknown["sha256"]}
        record = {"rule": rule, "environment": environment, "outputs": outputs}
        (table.parent / "records" / f"{name}.json").write_text(json.dumps(record))
    made = describe("x/claims.json", tmp_path, {})
    assert made["made"] == "2026-11-29"
    assert made["code"] == {"federate": ["code of federate/a"], "invert": [], "score": [], "judge": ["code of judge"]}
    (table.parent / "records" / "judge.json").unlink()
    assert describe("x/claims.json", tmp_path, made) == made, "the records may lie elsewhere"
    table.write_text("{ }")
    assert describe("x/claims.json", tmp_path, made)["made"] is None, "it was made anew"


def test_a_table_by_another_code_is_outdated() -> None:
    present = {stage: [code_version(f"leakpipe.cli.{stage}")] for stage in STAGES}
    mixed = {**present, "invert": ["0", *present["invert"]]}
    recorded = {"new": {"code": present}, "old": {"code": {**present, "invert": ["0"]}}, "mixed": {"code": mixed}}
    assert list_outdated({**recorded, "unknown": {"code": {}}}) == ["old", "mixed", "unknown"]
