"""What code a stage runs, as a hash that only changes when the code's meaning can.

Snakemake tracks the text of a `shell:` command, not the Python behind it. Each rule therefore carries
`code_version("leakpipe.cli.<stage>")` as a parameter: a hash over the syntax trees of the stage's module
and of every leakpipe module that it imports, directly or not, at the top or inside a function. Comments,
docstrings and formatting are not in a syntax tree, so editing them re-runs nothing.
"""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = "leakpipe"
ROOT = Path(__file__).parents[1]
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

# Values of parameters are tracked one by one by the rules that use them; messages and the version number
# change no result.
NOT_FOLLOWED = {
    PACKAGE,
    f"{PACKAGE}.errors",
    f"{PACKAGE}.params",
    *(f"{PACKAGE}.params.{path.stem}" for path in ROOT.glob("params/*.py")),
}


def code_version(module: str) -> str:
    """Hash (16 hex digits) of `module` and all that it imports from leakpipe."""
    digest = hashlib.sha256()
    for name in sorted(imported_modules(module)):
        digest.update(f"{name} {_module_hash(name)}\n".encode())
    return digest.hexdigest()[:16]


def imported_modules(module: str) -> set[str]:
    """`module`, every leakpipe module it imports, and so on; packages count with their `__init__`."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or name in NOT_FOLLOWED:
            continue
        found.add(name)
        waiting += _direct_imports(name)
    return found


@cache
def _direct_imports(module: str) -> tuple[str, ...]:
    names = _read(module)[1]
    with_parents = {".".join(name.split(".")[:depth]) for name in names for depth in range(1, name.count(".") + 2)}
    return tuple(sorted(name for name in with_parents if name.startswith(PACKAGE) and _source(name)))


@cache
def _module_hash(module: str) -> str:
    data = b"".join(_package_data(module))
    return hashlib.sha256(_read(module)[0].encode() + data).hexdigest()


@cache
def _read(module: str) -> tuple[str, list[str]]:
    """A module's syntax tree as text, without docstrings and places in the file, and all names that it imports.

    Every job does this with dozens of modules: parsing each once and walking it once is a third of the work.
    """
    source = _source(module)
    if source is None:
        raise ValueError(f"{module} is not a module of {PACKAGE}")
    words: list[str] = []
    names: list[str] = []
    waiting: list[object] = [ast.parse(source.read_text(encoding="utf-8"))]
    while waiting:
        part = waiting.pop()
        if isinstance(part, ast.AST):
            words.append(type(part).__name__)
            if isinstance(part, ast.Import):
                names += [alias.name for alias in part.names]
            elif isinstance(part, ast.ImportFrom) and part.module:
                names += [part.module, *(f"{part.module}.{alias.name}" for alias in part.names)]
            elif isinstance(part, DOCUMENTED) and ast.get_docstring(part, clean=False):
                part.body = part.body[1:]
            # Whether a name is read or written ("ctx") follows from where it is.
            waiting += [getattr(part, field) for field in part._fields if field != "ctx"]
        elif isinstance(part, list):
            words.append(str(len(part)))
            waiting += part
        else:
            words.append(repr(part))
    return "\n".join(words), names


@cache
def _source(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split(".")[1:])
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if module.split(".")[0] == PACKAGE and candidate.is_file():
            return candidate
    return None


def _package_data(module: str) -> Iterator[bytes]:
    """Files beside a package's `__init__` that are not Python (templates)."""
    source = _source(module)
    if source is not None and source.name == "__init__.py" and source.parent != ROOT:
        for path in sorted(source.parent.iterdir()):
            if path.is_file() and path.suffix not in {".py", ".pyc"}:
                yield path.name.encode() + path.read_bytes()
