"""The code that a stage runs, as a hash that changes only when the meaning of that code can.

Snakemake tracks the text of a `shell:` command, not the Python behind it. Each rule therefore carries
`code_version("leakpipe.cli.<stage>")` as a parameter: a hash over the syntax trees of the stage's module and of every
leakpipe module that it imports, directly or not, at the top or inside a function. A syntax tree holds no comments,
docstrings or formatting, and the form that is hashed here is the same under every supported Python.

Nothing but the standard library is imported, so any interpreter can compute these hashes.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

PACKAGE = "leakpipe"
ROOT = Path(__file__).parents[1]
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

# The rule: a module is followed unless the numbers of a stage cannot depend on it. Three kinds of modules are such;
# each entry stands for the module and all below it. `leakpipe.records.crate` and `leakpipe.tracking` are none of
# them: only the stages whose outputs they make import them.
NOT_FOLLOWED = {
    f"{PACKAGE}.params": "schema: rules track the values, defaults included, that a stage is given",
    f"{PACKAGE}.errors": "words",
    f"{PACKAGE}.cli.terminal": "what is shown while a job runs",
    f"{PACKAGE}.files.log": "notes of files read and written, for run records",
    f"{PACKAGE}.records.code_version": "this hash, for run records and checkpoints",
    f"{PACKAGE}.records.command_line": "the command, for run records",
    f"{PACKAGE}.records.reading": "checks of run records, which are passed on as they are",
    f"{PACKAGE}.records.run_record": "run records, which describe a job and its outputs",
}


def code_version(module: str) -> str:
    """Returns the hash (16 hex digits) of `module` and all that it imports from leakpipe.

    Raises:
        ValueError: There is no such module.
    """
    digest = hashlib.sha256()
    for name in sorted(imported_modules(module)):
        digest.update(f"{name} {_module_hash(name)}\n".encode())
    return digest.hexdigest()[:16]


def imported_modules(module: str) -> set[str]:
    """Returns `module`, every leakpipe module it imports, and so on; packages count with their `__init__`."""
    found: set[str] = set()
    waiting = _with_parents(module)
    while waiting:
        name = waiting.pop()
        if name in found or not is_followed(name):
            continue
        found.add(name)
        imported = filter(is_followed, _analyse(_text(name))[1])
        waiting += [part for each in imported for part in _with_parents(each) if _source(part)]
    return found


def is_followed(module: str) -> bool:
    """Returns whether an edit of a module re-runs the stages that import it."""
    return module != PACKAGE and not any(part in NOT_FOLLOWED for part in _with_parents(module))


def _with_parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts) + 1)]


def _module_hash(module: str) -> str:
    digest = hashlib.sha256(_analyse(_text(module))[0].encode())
    for content in _package_data(module):
        digest.update(content)
    return digest.hexdigest()


def _text(module: str) -> str:
    source = _source(module)
    if source is None:
        raise ValueError(f"{module} is not a module of {PACKAGE}")
    return source.read_text(encoding="utf-8")


@cache
def _analyse(source: str) -> tuple[str, tuple[str, ...]]:
    """Returns the hash of a module's syntax tree, and the names in leakpipe that it imports.

    What differs between versions of Python is left out: fields that are empty (3.12 added `type_params`), and how
    the constant parts of an f-string are cut up (3.12 parses them anew). Imports for type checkers do not run.
    """
    words: list[str] = []
    names: list[str] = []
    waiting: list[object] = [ast.parse(source)]
    while waiting:
        part = waiting.pop()
        if isinstance(part, ast.AST):
            kind = type(part)
            words.append(kind.__name__)
            if isinstance(part, ast.Import | ast.ImportFrom):
                names += _imports(part)
            elif isinstance(part, ast.JoinedStr):
                part.values = list(_joined_constants(part.values))
            elif isinstance(part, DOCUMENTED):
                documented = ast.get_docstring(part, clean=False) is not None
                part.body = [each for each in part.body[documented:] if not _is_for_type_checkers(each)]
            for field in kind._fields:
                value = getattr(part, field)
                # Whether a name is read or written ("ctx") follows from where it is; "kind" is the u of u"text".
                if value is not None and value != [] and field not in ("ctx", "kind"):
                    waiting += (value, field)
        elif isinstance(part, list):
            words.append(str(len(part)))
            waiting += part
        else:
            words.append(ascii(part))  # `repr` depends on the version of Unicode
    return hashlib.sha256("\n".join(words).encode()).hexdigest(), tuple(names)


def _is_for_type_checkers(part: object) -> bool:
    return isinstance(part, ast.If) and isinstance(part.test, ast.Name) and part.test.id == "TYPE_CHECKING"


def _imports(part: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """Yields what a statement imports from leakpipe, modules and the names in them alike."""
    start = f"{part.module}." if isinstance(part, ast.ImportFrom) else ""
    yield from (name for alias in part.names if (name := start + alias.name).split(".")[0] == PACKAGE)


def _joined_constants(values: Iterable[ast.expr]) -> Iterator[ast.expr]:
    """Joins neighbouring constants of an f-string and drops empty ones."""
    text = ""
    for value in values:
        if isinstance(value, ast.Constant):
            text += str(value.value)
            continue
        if text:
            yield ast.Constant(text)
        text = ""
        yield value
    if text:
        yield ast.Constant(text)


def _source(module: str) -> Path | None:
    return _sources(ROOT).get(module)


@cache
def _sources(root: Path) -> dict[str, Path]:
    """Returns the file of every module by name."""
    files = {path: [PACKAGE, *path.relative_to(root).with_suffix("").parts] for path in root.rglob("*.py")}
    return {".".join(parts[:-1] if path.name == "__init__.py" else parts): path for path, parts in files.items()}


def _package_data(module: str) -> Iterator[bytes]:
    """Yields files beside a package's `__init__` that are not Python (templates)."""
    source = _source(module)
    if source is not None and source.name == "__init__.py" and source.parent != ROOT:
        for path in sorted(source.parent.iterdir()):
            if path.is_file() and path.suffix not in {".py", ".pyc"} and not path.name.startswith("."):
                yield path.name.encode() + path.read_bytes()
