"""The hash of a stage's code: what it follows, and what changes it."""

import shutil
from pathlib import Path

import pytest

from leakpipe.records import code_version as module
from leakpipe.records.code_version import code_version, imported_modules

STAGES = ("prepare_data", "split_data", "federate", "invert", "score", "collect")


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package that code_version reads instead."""
    copy = tmp_path / "leakpipe"
    shutil.copytree(module.ROOT, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(module, "ROOT", copy)
    forget()
    yield copy
    forget()


def forget() -> None:
    for read in (module._direct_imports, module._module_hash, module._read, module._source):
        read.cache_clear()


def versions() -> dict[str, str]:
    forget()
    return {stage: code_version(f"leakpipe.cli.{stage}") for stage in STAGES}


def changed_by(path: Path, old: str, new: str) -> set[str]:
    before, text = versions(), path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    after = versions()
    return {stage for stage in STAGES if before[stage] != after[stage]}


def test_a_stage_follows_what_it_runs() -> None:
    followed = imported_modules("leakpipe.cli.invert")
    assert {"leakpipe.attacks.optimise", "leakpipe.client.local_update", "leakpipe.models.convnet"} <= followed
    assert not any(name.startswith(("leakpipe.metrics", "leakpipe.figures", "leakpipe.tracking")) for name in followed)
    with pytest.raises(ValueError, match="is not a module"):
        code_version("leakpipe.no_such_module")


@pytest.mark.parametrize(
    ("file", "old", "new", "stages"),
    [
        ("attacks/regularizers.py", ".abs().mean()", ".square().mean()", {"invert"}),
        ("client/local_update.py", "settings.learning_rate * gradient", "gradient", {"federate", "invert"}),
        ("federation/server.py", "count / total", "1 / len(images)", {"federate"}),
        ("client/aggregate.py", "count / total", "1 / len(images)", {"federate", "invert"}),
        ("metrics/rdlv.py", "<= 0", "< 0", {"score"}),
        ("tables/headline.py", "round(float(value), 4)", "float(value)", {"collect"}),
        ("data/datasets.py", "order=1", "order=3", {"prepare_data"}),
    ],
)
def test_an_edit_changes_the_stages_that_run_it(source: Path, file: str, old: str, new: str, stages: set[str]) -> None:
    assert changed_by(source / file, old, new) == stages


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("vertical = ", "# a comment\n    vertical = "),
        ("Mean absolute difference of vertical", "The mean absolute difference of vertical"),
        ("return vertical + horizontal", "return (vertical  +  horizontal)"),
    ],
    ids=["comment", "docstring", "formatting"],
)
def test_comments_docstrings_and_formatting_change_nothing(source: Path, old: str, new: str) -> None:
    assert changed_by(source / "attacks/regularizers.py", old, new) == set()


def test_definitions_of_parameters_change_nothing(source: Path) -> None:
    """Their values are tracked one by one by the rules."""
    assert changed_by(source / "params/federation.py", "le=10_000, description", "le=20_000, description") == set()
