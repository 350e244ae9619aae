"""Every command in the documentation is run by a test, or exists as it is written.

Blocks marked `sh` are run (test_docs.py, test_wheel.py, test_contributing.py). Of all others (blocks marked `text`,
indented lines, code within a sentence) the command, its options, targets and files are looked up, and nothing is run.
"""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from dvc.cli import DvcParserError
from dvc.cli.parser import get_main_parser
from snakemake.cli import get_argument_parser

from leakpipe.cli.main import COMMANDS, main
from tests.conftest import PROJECT
from tests.workflow.test_contributing import PAGE
from tests.workflow.test_docs import PAGES, blocks

DOCUMENTS = [PROJECT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md", "config/README.md")]
DOCUMENTS += sorted((PROJECT / "docs").rglob("*.md"))
FENCE = re.compile(r"^(`{3,})(\w*)[^\n]*\n(.*?)^\1$", flags=re.DOTALL | re.MULTILINE)
INDENTED, TICKED = re.compile(r"^ {4}(\S.*)$", flags=re.MULTILINE), re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")
FREE = re.compile(r"[<>…\[\]{}$]|NAME|PROJECT|^my[.-]|^/|://|~")  # what stands for something of the reader's
SNAKEFILES = [path for path in (PROJECT / "workflow").rglob("*") if path.suffix == ".smk" or path.name == "Snakefile"]
RULES = {name for path in SNAKEFILES for name in re.findall(r"^rule (\w+):", path.read_text(), flags=re.MULTILINE)}


def commands(page: Path) -> list[str]:
    """Commands of the tools in `CHECKS` that a page has outside of blocks that are run."""
    text = page.read_text()
    fenced = [line for _, kind, content in FENCE.findall(text) if kind in ("text", "") for line in content.splitlines()]
    prose = FENCE.sub("", text)
    spans = [" ".join(span.split()) for span in TICKED.findall(prose)]
    found = [re.sub(r"\s+#.*| …$", "", line.strip()) for line in (*fenced, *INDENTED.findall(prose), *spans)]
    return [line for line in dict.fromkeys(found) if line.split()[:1] and line.split()[0] in CHECKS and " " in line]


def files_exist(page: Path, words: list[str]) -> None:
    """Every YAML file is the project's, or one that the page has its reader write."""
    written = {block.file for block in blocks(page)} | {Path(block.file).name for block in blocks(page)}
    named = [word for word in words if word.endswith((".yaml", ".smk")) and not FREE.search(word)]
    missing = [word for word in named if word not in written and not (PROJECT / word).exists()]
    assert set(missing) <= {"audit.yaml"}, "neither the project's nor written on this page"


def check_leakpipe(page: Path, words: list[str]) -> None:
    if words[0].startswith("-"):
        assert words[0] in ("--help", "--version")
        return
    assert words[0] in COMMANDS
    command = main.get_command(click.Context(main), words[0])
    if isinstance(command, click.Group):
        command = command.get_command(click.Context(command), words[1])
    assert command is not None
    known = {option for param in command.params for option in param.opts} | {"--help"}
    assert [word for word in words[1:] if re.match(r"--[a-z]", word) and word.split("=")[0] not in known] == []
    files_exist(page, words)


def check_snakemake(page: Path, words: list[str]) -> None:
    parsed, unknown = get_argument_parser().parse_known_args(words)
    assert unknown == []
    assert {target for target in parsed.targets if not FREE.search(target) and "/" not in target} <= RULES
    files_exist(page, words)


def check_make(_page: Path, words: list[str]) -> None:
    targets = set(re.findall(r"^([\w-]+):", (PROJECT / "Makefile").read_text(), flags=re.MULTILINE))
    assert {word for word in words if "=" not in word} <= targets


def check_python(_page: Path, words: list[str]) -> None:
    if words[0] == "-m" and words[1].startswith(("tests", "leakpipe")):
        place = PROJECT / ("src" if words[1].startswith("leakpipe") else "") / words[1].replace(".", "/")
        assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file()


def check_pytest(_page: Path, words: list[str]) -> None:
    assert [word for word in words if word.startswith("tests") and not (PROJECT / word).exists()] == []


def check_dvc(_page: Path, words: list[str]) -> None:
    get_main_parser().parse_args(words)


CHECKS: dict[str, Callable[[Path, list[str]], None]] = {
    "leakpipe": check_leakpipe,
    "snakemake": check_snakemake,
    "make": check_make,
    "python": check_python,
    "pytest": check_pytest,
    "dvc": check_dvc,
}
WRITTEN = [(page, command) for page in DOCUMENTS for command in commands(page)]


@pytest.mark.parametrize(
    ("page", "command"), WRITTEN, ids=[f"{page.relative_to(PROJECT)}:{command}" for page, command in WRITTEN]
)
def test_a_command_exists_as_it_is_written(page: Path, command: str) -> None:
    tool, *words = shlex.split(command)
    CHECKS[tool](page, words)


def test_commands_are_found_where_readers_see_them() -> None:
    assert len(WRITTEN) > 100
    assert (PROJECT / "README.md", "make reproduce") in WRITTEN
    assert (PROJECT / "docs" / "verify.md", "leakpipe verify results/default") in WRITTEN


@pytest.mark.parametrize(
    "command", ["leakpipe check --nothing x.yaml", "snakemake nowhere", "make nothing", "dvc nothing"]
)
def test_a_command_that_does_not_exist_is_noticed(command: str) -> None:
    tool, *words = shlex.split(command)
    with pytest.raises((AssertionError, DvcParserError)):
        CHECKS[tool](PAGE, words)


def test_blocks_that_claim_to_be_run_are_on_pages_that_a_test_follows() -> None:
    followed = {*PAGES, PAGE}
    claiming = {page for page in DOCUMENTS if re.search(r"^`{3,}(sh|bash|shell|console)\b", page.read_text(), re.M)}
    assert claiming <= followed
