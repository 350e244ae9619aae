"""The commands in docs/tutorial.md and docs/how-to work, block by block, in a copy of the project."""

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import PROJECT
from tests.workflow.conftest import environment

DOCS = PROJECT / "docs"
PAGES = [DOCS / "tutorial.md", *sorted((DOCS / "how-to").glob("*.md"))]
ELSEWHERE = DOCS / "how-to" / "audit.md"  # tests/workflow/test_wheel.py follows it without a checkout
FENCED = re.compile(r'^(`{3,})(\w+)(?: title="([^"]+)")?\n(.*?)^\1$', flags=re.DOTALL | re.MULTILINE)
ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # several on busy cores wait for one another


class Block(NamedTuple):
    """One fenced block: `sh` and `python` are run, blocks with a file name are written, `text` is only read."""

    language: str
    file: str
    content: str


def blocks(page: Path) -> list[Block]:
    return [Block(*found) for _, *found in FENCED.findall(page.read_text())]


def replay(block: Block, project: Path, variables: Mapping[str, str]) -> None:
    """Does what a reader would do."""
    if block.language == "diff":
        apply_change(project / block.file, block.content)
    elif block.file:
        (project / block.file).write_text(block.content)
    elif block.language in ("sh", "python"):
        command = ["bash", "-euc"] if block.language == "sh" else [sys.executable, "-c"]
        done = subprocess.run(
            [*command, block.content],
            cwd=project,
            env={**variables, **ONE_THREAD},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{block.content}\n{done.stdout}{done.stderr}"


def apply_change(path: Path, change: str) -> None:
    """Replaces the lines with − or a space in front by those with + or a space."""
    lines = change.splitlines()
    old, new = ("\n".join(line[1:] for line in lines if not line.startswith(sign)) for sign in "+-")
    text = path.read_text()
    assert text.count(old) == 1, f"{path.name} has {text.count(old)} places for:\n{change}"
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("page", [page for page in PAGES if page != ELSEWHERE], ids=lambda page: page.stem)
def test_a_page_does_what_it_says(page: Path, project: Path) -> None:
    for block in blocks(page):
        replay(block, project, environment(project))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_are_of_a_kind_that_the_test_knows(page: Path) -> None:
    fences = re.findall(r"^```(\S+)", page.read_text(), flags=re.MULTILINE)
    assert len(fences) == len(blocks(page)), "a block that is not run would go unnoticed"
    for block in blocks(page):
        assert block.language in {"sh", "python", "text"} or block.file, block


def test_the_reference_has_every_package() -> None:
    packages = {path.parent.name for path in (PROJECT / "src" / "leakpipe").glob("*/__init__.py")}
    written = {
        name
        for page in (DOCS / "reference").glob("*.md")
        for name in re.findall(r"::: leakpipe\.(\w+)", page.read_text())
    }
    assert packages - written == {"cli", "report"}, "commands have --help; the report is a page, not an interface"


def test_every_page_is_on_the_site_which_fetches_nothing() -> None:
    site = (PROJECT / "mkdocs.yml").read_text()
    assert {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} == set(re.findall(r"[\w/-]+\.md", site))
    assert "font: false" in site
    assert not re.search("extra_(css|javascript)|- offline", site)
