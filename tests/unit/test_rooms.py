"""The rooms of the package: which may import which, and what their modules need from outside."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import leakpipe

ROOT = Path(leakpipe.__file__).parent
# A room imports only rooms that stand before it.
ORDER = (
    *("leakpipe", "errors", "randomness", "registry"),
    *("params", "files", "data", "models", "client", "captured", "defenses", "attacks", "federation", "accounting"),
    *("experiment", "metrics", "tables", "figures", "claims", "report", "audit"),
    *("records", "tracking", "cli", "__main__"),
)
NEVER = {"attacks": {"data", "federation"}, "metrics": {"attacks", "federation", "experiment"}}
LIBRARY = ("models", "client", "captured", "defenses", "attacks", "federation", "metrics")
# Of the packages that leakpipe requires, those that the library does without.
PIPELINE_ONLY = ("click", "matplotlib", "mlflow", "pandas", "pyarrow", "snakemake", "torchvision", "tqdm", "yaml")


def name_of(path: Path) -> str:
    return ".".join(["leakpipe", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")


FILES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def room(module: str) -> str:
    return ".".join(module.split(".")[1:2]) or "leakpipe"


def imports(module: str, *, types: bool = True) -> Iterator[str]:
    """Modules of leakpipe that a module imports anywhere; those for type checkers only if `types`."""
    tree = ast.parse(FILES[module].read_text())
    if not types:
        tree.body = [
            node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        ]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            parts = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (part if part in FILES else str(node.module) for part in parts if part.startswith("leakpipe"))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("leakpipe"))


def test_no_arrow_between_rooms_runs_up() -> None:
    assert set(map(room, FILES)) == set(ORDER)
    up = [
        f"{module} imports {imported}"
        for module in FILES
        for imported in imports(module)
        if ORDER.index(room(imported)) > ORDER.index(room(module)) or room(imported) in NEVER.get(room(module), ())
    ]
    assert up == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    TopologicalSorter({module: set(imports(module, types=False)) for module in FILES}).prepare()


def test_the_root_holds_few_loose_modules() -> None:
    loose = {path.stem for path in ROOT.glob("*.py")}
    assert loose <= {"__init__", "__main__", "errors", "randomness", "registry"}


def works_without(packages: tuple[str, ...], modules: list[str]) -> str:
    """Import modules where these packages are not installed; returns the end of the error, if any."""
    script = "\n".join(
        [f"import sys; sys.modules.update(dict.fromkeys({packages!r}))", *(f"import {m}" for m in modules)]
    )
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False).stderr[-500:]


def test_the_library_needs_no_package_of_the_pipeline() -> None:
    # Imported where a model of torchvision is built, or inside of a federation.
    adapters = {"leakpipe.models.torchvision_network", "leakpipe.captured.flower", "leakpipe.captured.nvflare"}
    modules = [module for module in FILES if room(module) in LIBRARY and module not in adapters]
    assert works_without(PIPELINE_ONLY, modules) == ""


def test_capturing_needs_no_torch_and_no_package_of_the_pipeline() -> None:
    """It is imported inside of federations, some of which train without torch."""
    assert works_without((*PIPELINE_ONLY, "torch", "pydantic", "scipy", "skimage"), ["leakpipe.captured.writing"]) == ""


def test_planning_needs_no_torch() -> None:
    """The Snakefile plans at every start; importing torch, pandas or matplotlib costs seconds."""
    planned = [
        "leakpipe.experiment.reading",
        "leakpipe.experiment.workload",
        "leakpipe.records.code_version",
        "leakpipe.models.weights",
    ]
    assert works_without(("torch", "torchvision", "pandas", "matplotlib", "scipy", "skimage"), planned) == ""
