"""The hash of a stage's code: it follows all that computes, nothing else, and is the same under every Python."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from leakpipe.records import code_version as module
from leakpipe.records.code_version import NOT_FOLLOWED, code_version, imported_modules, is_followed

STAGES = ("prepare_data", "split_data", "pretrain", "federate", "invert", "score", "identify", "collect")
HASHES = f"""
import json, sys
sys.path.insert(0, {str(module.ROOT.parent)!r})
from leakpipe.records.code_version import ROOT, code_version
print(json.dumps({{path.stem: code_version(f"leakpipe.cli.{{path.stem}}") for path in ROOT.glob("cli/[!_]*.py")}}))
"""


def module_name(path: Path, root: Path = module.ROOT) -> str:
    return ".".join(["leakpipe", *path.relative_to(root).with_suffix("").parts]).removesuffix(".__init__")


ALL_MODULES = sorted(module_name(path) for path in module.ROOT.rglob("*.py"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the package that code_version reads instead."""
    copy = tmp_path_factory.mktemp("source") / "leakpipe"
    shutil.copytree(module.ROOT, copy, ignore=shutil.ignore_patterns("__pycache__"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ROOT", copy)
        yield copy


def commands(source: Path) -> list[str]:
    """Every module whose version a rule depends on: of a command, or of a figure."""
    marks = {"cli": "@click.command", "figures": "@figure("}
    found = [path for room, mark in marks.items() for path in source.glob(f"{room}/*.py") if mark in path.read_text()]
    return [module_name(path, source) for path in found]


def file_of(source: Path, name: str) -> Path:
    path = source.joinpath(*name.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def changed_by(path: Path, text: str, among: list[str]) -> set[str]:
    """Those of the commands `among` whose hash changes when a file's content becomes `text`."""
    before, original = {name: code_version(name) for name in among}, path.read_text()
    path.write_text(text)
    try:
        return {name for name in among if code_version(name) != before[name]}
    finally:
        path.write_text(original)


def replaced(path: Path, old: str, new: str) -> str:
    text = path.read_text()
    assert old in text
    return text.replace(old, new)


def break_logic(text: str) -> str:
    """A module whose last `return` gives something else; where nothing is returned, one with a constant more."""
    returns = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Return) and node.value]
    if not returns:
        return f"{text}\nBROKEN = True\n"
    value = max((node.value for node in returns if node.value), key=lambda value: value.lineno)
    lines = text.encode().splitlines(keepends=True)
    start = sum(map(len, lines[: value.lineno - 1])) + value.col_offset
    end = sum(map(len, lines[: (value.end_lineno or 0) - 1])) + (value.end_col_offset or 0)
    return (text.encode()[:start] + b"'broken'" + text.encode()[end:]).decode()


def naive_imports(source: Path) -> dict[str, set[str]]:
    """Returns what each module imports, by the text of its import statements (not of those for type checkers)."""
    found = {}
    for name in ALL_MODULES:
        text = re.sub(
            r"^if TYPE_CHECKING:\n(?:    .*\n|\n)+", "", file_of(source, name).read_text(), flags=re.MULTILINE
        )
        text = re.sub(r"\(\s*([^()]*)\)", lambda match: " ".join(match[1].split()), text)
        lines = re.findall(r"^\s*from (leakpipe[\w.]*) import (.*)$", text, flags=re.MULTILINE)
        names = {
            f"{package}.{part.split()[0]}" for package, parts in lines for part in parts.split(",") if part.strip()
        }
        found[name] = {part for each in names for part in (each, each.rpartition(".")[0]) if part in ALL_MODULES}
    return found


def naive_closure(name: str, imports: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [name]
    while waiting:
        each = waiting.pop()
        if each not in found and is_followed(each):
            found.add(each)
            waiting += [*imports[each], each.rpartition(".")[0]]
    return found


def test_every_module_that_computes_is_followed(source: Path) -> None:
    imports = naive_imports(source)
    followed = {name: imported_modules(name) for name in commands(source)}
    assert followed == {name: naive_closure(name, imports) for name in followed}
    # How commands are found and started, what makes no results, and what no command uses yet.
    others = r"__main__|cli\.(main|fetch)|data\.fetch|captured(\.\w+)*"
    reached = set().union(*followed.values())
    left = [name for name in ALL_MODULES if is_followed(name) and name not in reached]
    assert [name for name in left if not re.match(rf"leakpipe\.({others})$", name)] == []


def test_broken_logic_moves_the_hash_of_its_module() -> None:
    texts = {name: file_of(module.ROOT, name).read_text() for name in ALL_MODULES if is_followed(name)}
    assert [name for name, text in texts.items() if module._analyse(break_logic(text)) == module._analyse(text)] == []


@pytest.mark.parametrize(
    ("file", "old", "new", "stages"),
    [
        ("attacks/terms/images.py", ".abs().mean()", ".square().mean()", {"invert"}),
        ("attacks/requirements.py", "objective_weight > 0 or", "objective_weight > 0 and", {"invert"}),
        (
            "client/local_update.py",
            "settings.learning_rate * gradient",
            "gradient",
            {"federate", "pretrain", "invert", "identify"},
        ),
        ("data/datasets.py", "order=1", "order=3", {"prepare_data"}),
        ("data/priors.py", "dtype=np.float64", "dtype=np.float32", {"split_data", "invert"}),
        ("defenses/steps.py", "last.clients if", "1 if", {"federate", "pretrain", "invert"}),
        ("federation/server.py", "count / total", "1 / len(images)", {"federate", "pretrain"}),
        ("metrics/rdlv.py", "<= 0", "< 0", {"score"}),
        ("tables/headline.py", "round(float(value), 4)", "float(value)", {"collect"}),
    ],
)
def test_an_edit_changes_the_stages_that_run_it(source: Path, file: str, old: str, new: str, stages: set[str]) -> None:
    changed = changed_by(source / file, replaced(source / file, old, new), [f"leakpipe.cli.{name}" for name in STAGES])
    assert changed == {f"leakpipe.cli.{name}" for name in stages}


def test_what_only_records_or_shows_changes_nothing(source: Path) -> None:
    before = {name: code_version(name) for name in commands(source)}
    for name in ALL_MODULES:
        if not is_followed(name):
            path = file_of(source, name)
            path.write_text(break_logic(path.read_text()))
    assert {name: code_version(name) for name in before} == before


@pytest.mark.parametrize("room", ["records", "tracking", "figures", "report", "metrics", "tables", "data.phantom"])
def test_an_attack_depends_on_no_room_that_it_does_not_use(room: str) -> None:
    assert not {name for name in imported_modules("leakpipe.cli.invert") if name.startswith(f"leakpipe.{room}.")}


def test_each_exception_has_a_reason_and_exists() -> None:
    assert set(NOT_FOLLOWED) <= set(ALL_MODULES)
    assert all(NOT_FOLLOWED.values())
    with pytest.raises(ValueError, match="is not a module"):
        code_version("leakpipe.no_such_module")


SCHEMA = [path for path in sorted(module.ROOT.glob("params/*.py")) if path.stem != "yaml_loader"]  # a reader of files


@pytest.mark.parametrize("path", SCHEMA, ids=lambda path: f"params/{path.name}")
def test_schema_decides_nothing(path: Path) -> None:
    """Classes of parameters hold fields and validators, no methods or properties that stages could call."""
    classes = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]
    methods = [node for each in classes for node in each.body if isinstance(node, ast.FunctionDef)]
    public = [node.name for node in methods if not node.name.startswith("_")]
    assert public == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("axes = ", "# a comment\n    axes = "),
        ("Mean absolute difference of vertical", "The mean absolute difference of vertical"),
        ("return sum(means[1:], means[0])", "return (sum(means[1:],  means[0]))"),
    ],
    ids=["comment", "docstring", "formatting"],
)
def test_comments_docstrings_and_formatting_change_nothing(source: Path, old: str, new: str) -> None:
    path = source / "attacks/terms/images.py"
    assert changed_by(path, replaced(path, old, new), ["leakpipe.cli.invert"]) == set()


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("if TYPE_CHECKING:\n    import leakpipe.tables.table", "", True),
        ("f'a' 'b{x}' f'{x:g}'", "f'ab{{x}}{x:g}'", True),
        ("u'text'", "'text'", True),
        ("f'{x:g}'", "f'{x:f}'", False),
        ("f'{x!r}'", "f'{x!s}'", False),
        ("f(*a, b)", "f(a, *b)", False),
        ("f(a=1)", "f(b=1)", False),
        ("x = [1, [2]]", "x = [[1], 2]", False),
        ("x = 1", "x = 1.0", False),
        ("x = -1", "x = +1", False),
        ("def f(a, /, b): pass", "def f(a, b): pass", False),
        ("def f(a, *, b=1): pass", "def f(a, *, b): pass", False),
        ("x[1:]", "x[:1]", False),
        ("for x in y:\n    pass\nelse:\n    z()", "for x in y:\n    pass\nz()", False),
        ("'''words''' + x", "x", False),
    ],
)
def test_only_the_meaning_of_code_counts(first: str, second: str, *, same: bool) -> None:
    assert (module._analyse(first) == module._analyse(second)) == same


def interpreter(version: str) -> str | None:
    """An interpreter of this version that starts; None if there is none."""
    installed = sorted(
        Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob(f"versions/{version}.*/bin/python")
    )
    for path in filter(None, [shutil.which(f"python{version}"), *map(str, installed)]):
        asked = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        if f"Python {version}." in asked.stdout:
            return path
    return None


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_every_python_finds_the_same_hashes(version: str) -> None:
    """Without any package: the interpreters need not have leakpipe's."""
    path = interpreter(version)
    if path is None:
        pytest.skip(f"no Python {version} here")
    printed = subprocess.run([path, "-I", "-S", "-c", HASHES], capture_output=True, text=True, check=True).stdout
    here = {file.stem: code_version(f"leakpipe.cli.{file.stem}") for file in module.ROOT.glob("cli/[!_]*.py")}
    assert json.loads(printed) == here
    assert len(here) > len(STAGES), sys.version
