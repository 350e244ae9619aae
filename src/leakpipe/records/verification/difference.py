"""Differences between two files of numbers: tensors, JSON, CSV."""

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file


@dataclass(frozen=True)
class Difference:
    """The difference between two files.

    Attributes:
        size: The largest of: a tensor's root mean square difference, relative to its largest magnitude in the first
            file; another number's difference, relative to the number (or to 1 if that is more). 0: the same numbers.
            Infinite: something other than a floating-point number differs.
        where: The tensor, field or cell that differs most ("" if none does).
    """

    size: float
    where: str = ""


def compare_files(first: Path, second: Path) -> Difference:
    """Compares two files by content, read as their suffix says; in files of unknown kinds every byte counts.

    The `sha256` of a sidecar does not count: it differs whenever the tensors do.
    """
    if first.read_bytes() == second.read_bytes():
        return Difference(0.0)
    read, compare = KINDS.get(first.suffix, (Path.read_bytes, _compare_bytes))
    try:
        contents = read(first), read(second)
    except Exception:  # of safetensors, JSON, CSV or Unicode: results may be damaged, or somebody else's
        return Difference(math.inf, "content, which cannot be read")
    return max(compare(*contents), key=lambda difference: difference.size, default=Difference(0.0))


def _compare_bytes(_first: bytes, _second: bytes) -> Iterator[Difference]:
    yield Difference(math.inf, "bytes")


def _relative(apart: float, scale: float) -> float:
    """Returns a relative difference; infinite where a value is not finite, for no tolerance admits NaN."""
    return apart / scale if math.isfinite(apart) and math.isfinite(scale) else math.inf


def _compare_tensors(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> Iterator[Difference]:
    for name in sorted({*first, *second}):
        one, other = first.get(name), second.get(name)
        if one is None or other is None or one.shape != other.shape or one.dtype != other.dtype:
            yield Difference(math.inf, name)
        elif not np.array_equal(one, other):
            exact = not np.issubdtype(one.dtype, np.floating)
            apart = float(np.sqrt(np.square(one.astype(np.float64) - other).mean()))
            yield Difference(math.inf if exact else _relative(apart, float(np.abs(one).max()) or 1.0), name)


def _compare_values(first: Any, second: Any, where: str = "") -> Iterator[Difference]:
    if isinstance(first, dict) and isinstance(second, dict):
        for key in sorted({*first, *second}):
            yield from _compare_values(first.get(key), second.get(key), f"{where}.{key}" if where else key)
    elif isinstance(first, list) and isinstance(second, list):
        for number, (one, other) in enumerate(zip_longest(first, second)):
            yield from _compare_values(one, other, f"{where}[{number}]")
    elif isinstance(first, float) and isinstance(second, float):
        alike = first == second or (math.isnan(first) and math.isnan(second))
        yield Difference(0.0 if alike else _relative(abs(first - second), max(1.0, abs(first))), where)
    elif first != second:
        yield Difference(math.inf, where)


def _without_digest(path: Path) -> Any:
    content = json.loads(path.read_text(encoding="utf-8"))
    return {key: value for key, value in content.items() if key != "sha256"} if isinstance(content, dict) else content


def _read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a table; cells with a decimal point are numbers."""
    with path.open(encoding="utf-8", newline="") as stream:
        return [{name: _as_number(cell) for name, cell in row.items()} for row in csv.DictReader(stream)]


def _as_number(cell: str) -> str | float:
    try:
        return cell if cell.lstrip("-").isdigit() else float(cell)
    except (TypeError, ValueError):
        return cell


KINDS: dict[str, tuple[Callable[[Path], Any], Callable[[Any, Any], Iterator[Difference]]]] = {
    ".safetensors": (load_file, _compare_tensors),
    ".json": (_without_digest, _compare_values),
    ".csv": (_read_rows, _compare_values),
}
