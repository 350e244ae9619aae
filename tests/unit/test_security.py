"""Foreign bytes and names: no code of theirs runs, no terminal, page or spreadsheet obeys them (SECURITY.md)."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import TypeAdapter, ValidationError

from leakpipe.cli.main import main
from leakpipe.params.types import ClassName, Name
from leakpipe.records.verification.replay import _run


@pytest.mark.parametrize("place", ["json.py", "torch.py", "leakpipe/__init__.py"])
def test_a_job_run_again_imports_nothing_from_foreign_results(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that a record lists as inputs are linked into the folder in which its command runs."""
    monkeypatch.setenv("PYTHONPATH", f":.:{Path(__file__).parents[2]}")
    results = tmp_path / "results"
    (results / place).parent.mkdir(parents=True)
    (results / place).write_text(f"from pathlib import Path; Path({str(tmp_path / 'ran')!r}).touch()")
    _run(["invert", "--help"], results, source=tmp_path)
    assert not (tmp_path / "ran").exists()


def test_messages_show_control_characters_instead_of_sending_them(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text('"a\\e[31m\\e]0;title\\a": 1')
    said = CliRunner().invoke(main, ["check", str(path)])
    assert said.exit_code == 1
    assert "\x1b" not in said.output
    assert "a\\x1b[31m" in said.output


@pytest.mark.parametrize("first", "=+-@\t\r\n|%.~/")
def test_no_name_begins_as_a_formula_of_a_spreadsheet(first: str) -> None:
    """Every text in our tables is a name of an experiment, client, defence, attack or embedder."""
    with pytest.raises(ValidationError):
        TypeAdapter(Name).validate_python(f"{first}cmd")


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "a\nb", "a\x1b", "a\\b", ""])
def test_no_class_leaves_its_folder(name: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(ClassName).validate_python(name)


def test_nothing_of_ours_unpickles_or_loads_yaml_with_tags() -> None:
    source = "\n".join(path.read_text() for path in (Path(__file__).parents[2] / "src").rglob("*.py"))
    calls = re.findall(r"torch\.load\((?:[^()]|\([^()]*\))*\)", source)
    assert calls
    assert all("weights_only=True" in call and "map_location=" in call for call in calls)
    assert not re.findall(r"pickle\.loads?\(|allow_pickle=True|(?:unsafe|full)_load|shell=True|\bmktemp\(", source)
