"""The validators of others pass the files by which this project is hosted, archived and built.

Each is skipped where its tool is not installed: `make test-metadata`.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from leakpipe import __version__
from leakpipe.params.reading import read_yaml
from tests.conftest import PROJECT

HOSTED = PROJECT / ".github"
SCHEMAS = [
    ("vendor.github-workflows", HOSTED / "workflows" / "ci.yml"),
    ("vendor.github-issue-forms", HOSTED / "ISSUE_TEMPLATE" / "bug.yml"),
    ("vendor.github-issue-forms", HOSTED / "ISSUE_TEMPLATE" / "attack.yml"),
    ("vendor.github-issue-config", HOSTED / "ISSUE_TEMPLATE" / "config.yml"),
    ("vendor.dependabot", HOSTED / "dependabot.yml"),
    ("vendor.citation-file-format", PROJECT / "CITATION.cff"),
]


def run(tool: str, *arguments: str) -> None:
    """Runs a validator of this environment in the project; fails with what it says."""
    path = shutil.which(tool, path=str(Path(sys.executable).parent))
    if path is None:
        pytest.skip(f"{tool} is not installed: make test-metadata")
    done = subprocess.run([path, *arguments], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("schema", "file"), SCHEMAS, ids=[file.name for _, file in SCHEMAS])
def test_a_file_fits_its_public_schema(schema: str, file: Path) -> None:
    run("check-jsonschema", "--builtin-schema", schema, str(file))


def test_every_hosted_file_has_a_schema() -> None:
    assert {file for _, file in SCHEMAS if file.is_relative_to(HOSTED)} == set(HOSTED.rglob("*.yml"))


def test_hosted_jobs_give_nothing_away() -> None:
    run("zizmor", "--offline", "--persona=pedantic", "--no-progress", str(HOSTED))


def test_the_container_recipe_is_sound() -> None:
    run("hadolint", "Containerfile")


def test_every_file_has_a_licence() -> None:
    run("reuse", "lint")


def test_hosted_jobs_call_the_makefile_with_every_python() -> None:
    """`.ci/run` calls it as well, so what passes here passes there."""
    jobs = yaml.safe_load((HOSTED / "workflows" / "ci.yml").read_text())["jobs"]
    matrix = jobs["test"]["strategy"]["matrix"]
    called = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    called = [command.replace("${{ matrix.target || 'test' }}", "test") for command in called]
    targets = set(re.findall(r"^([\w-]+):.* ## ", (PROJECT / "Makefile").read_text(), flags=re.MULTILINE))
    assert {tuple(command.split()[:1]) for command in called} == {("make",)}
    assert {command.split()[1] for command in called} == {"lint", "test", "tiny", "docs", "test-metadata"} <= targets
    assert "make test" in (PROJECT / ".ci" / "run").read_text()
    supported = re.findall(r"Python :: (3\.\d+)", (PROJECT / "pyproject.toml").read_text())
    assert matrix["python"] == supported
    assert matrix["include"] == [{"python": supported[-1], "target": "coverage"}]
    assert "coverage" in targets


def test_archive_and_citation_say_the_same() -> None:
    archive, citation = json.loads((PROJECT / ".zenodo.json").read_text()), read_yaml(PROJECT / "CITATION.cff")
    for key in ("title", "version", "license"):
        assert archive[key] == citation[key]
    assert citation["version"] == __version__
    assert [each["name"] for each in archive["creators"]] == [each["name"] for each in citation["authors"]]
    cited = [each["identifier"] for each in archive["related_identifiers"]]
    assert cited == [each["doi"] for each in citation["references"]]
