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
ROOT = Path(__file__).parent

# Values of parameters are tracked one by one by the rules that use them; messages and the version number
# change no result.
NOT_FOLLOWED = {PACKAGE, f"{PACKAGE}.errors", *(f"{PACKAGE}.{path.stem}" for path in ROOT.glob("params*.py"))}


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
    names: list[str] = []
    for node in ast.walk(_parse(module)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    with_parents = {".".join(name.split(".")[:depth]) for name in names for depth in range(1, name.count(".") + 2)}
    return tuple(sorted(name for name in with_parents if name.startswith(PACKAGE) and _source(name)))


@cache
def _module_hash(module: str) -> str:
    tree = _parse(module)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node, clean=False
        ):
            node.body = node.body[1:]
    data = b"".join(_package_data(module))
    return hashlib.sha256(ast.dump(tree).encode() + data).hexdigest()


def _parse(module: str) -> ast.Module:
    source = _source(module)
    if source is None:
        raise ValueError(f"{module} is not a module of {PACKAGE}")
    return ast.parse(source.read_text(encoding="utf-8"))


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
