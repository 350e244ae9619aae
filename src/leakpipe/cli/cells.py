"""Whether a file is of the cell that a job was started for; a whole file in another's place passes other checks."""

from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

from leakpipe.errors import LeakpipeError

NAMES = ("experiment", "defense", "seed", "round", "client", "attack")


def require_cell(path: Path, cell: Mapping[str, Any], labels: Mapping[str, Any]) -> None:
    """Check that what a file says it is of agrees with the job's labels, as far as both say it.

    Raises:
        LeakpipeError: It is of another experiment, defence, seed, round, client or attack.
    """
    for name in NAMES:
        if name in cell and name in labels and str(cell[name]) != str(labels[name]):
            raise LeakpipeError(f"{path}: is of {name} {cell[name]!r}, expected {str(labels[name])!r}")


def require_distinct(files: Iterable[tuple[Path, Mapping[str, Any]]]) -> None:
    """Check that no two files are of the same cell.

    Args:
        files: Path and cell of each.

    Raises:
        LeakpipeError: Two are, so that one stands where another should.
    """
    seen: dict[Hashable, Path] = {}
    for path, cell in files:
        first = seen.setdefault(tuple(cell.get(name) for name in NAMES), path)
        if first != path:
            raise LeakpipeError(f"{path}: is of the same cell as {first}; one of them stands in another's place")
