"""The difference between two files, against closed forms."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from leakpipe.records.verification.difference import Difference, compare_files


def tensors(path: Path, **arrays: np.ndarray) -> Path:
    save_file(arrays, path)
    return path


def text(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_the_same_bytes_are_no_difference(tmp_path: Path) -> None:
    assert compare_files(text(tmp_path / "a.txt", "x"), text(tmp_path / "b.txt", "x")) == Difference(0.0)


def test_tensors_are_held_against_their_largest_value(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    one, small = rng.normal(size=(5, 7)).astype(np.float32), np.float32([1e-6, 2e-6])
    other = one + rng.normal(scale=1e-3, size=one.shape).astype(np.float32)
    first = tensors(tmp_path / "a.safetensors", x=one, y=small)
    found = compare_files(first, tensors(tmp_path / "b.safetensors", x=other, y=small))
    squares = [(float(a) - float(b)) ** 2 for a, b in zip(one.flat, other.flat, strict=True)]
    oracle = math.sqrt(sum(squares) / len(squares)) / float(max(map(abs, one.flat)))
    assert (found.where, found.size) == ("x", pytest.approx(oracle, rel=1e-6))
    found = compare_files(first, tensors(tmp_path / "c.safetensors", x=other, y=small[::-1].copy()))
    assert (found.where, found.size) == ("y", pytest.approx(0.5))


@pytest.mark.parametrize("other", [{"x": [1.0, 2.0]}, {"x": [1.0], "y": [1.0]}, {"z": [1.0]}])
def test_other_tensors_are_infinitely_far(tmp_path: Path, other: dict[str, list[float]]) -> None:
    first = tensors(tmp_path / "a.safetensors", x=np.float32([1.0]))
    second = tensors(tmp_path / "b.safetensors", **{name: np.float32(value) for name, value in other.items()})
    assert math.isinf(compare_files(first, second).size)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("turned", [False, True])
def test_no_tolerance_admits_what_is_not_finite(value: float, turned: bool, tmp_path: Path) -> None:
    paths = [
        tensors(tmp_path / f"{number}.safetensors", x=np.float32([1.0, entry]))
        for number, entry in enumerate([value, 2])
    ]
    assert compare_files(*(reversed(paths) if turned else paths)) == Difference(math.inf, "x")


@pytest.mark.parametrize("suffix", [".safetensors", ".json", ".csv"])
def test_files_that_cannot_be_read_are_infinitely_far(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"a{suffix}").write_bytes(b"\xff{")
    (tmp_path / f"b{suffix}").write_bytes(b"\xfe[")
    assert math.isinf(compare_files(tmp_path / f"a{suffix}", tmp_path / f"b{suffix}").size)


def test_whole_numbers_must_be_the_same(tmp_path: Path) -> None:
    first = tensors(tmp_path / "a.safetensors", labels=np.int64([1, 0]))
    assert compare_files(first, tensors(tmp_path / "b.safetensors", labels=np.int64([1, 1]))) == Difference(
        math.inf, "labels"
    )


@pytest.mark.parametrize(
    ("one", "other", "size", "where"),
    [
        ({"sha256": "a", "x": 1}, {"sha256": "b", "x": 1}, 0.0, ""),
        ({"x": {"y": [0.5, 4.0]}}, {"x": {"y": [0.5, 5.0]}}, 0.25, "x.y[1]"),
        ({"x": 1}, {"x": 2}, math.inf, "x"),
        ({"x": "a"}, {"x": "b"}, math.inf, "x"),
        ({"x": [1.0]}, {"x": [1.0, 2.0]}, math.inf, "x[1]"),
        ({"x": 1.0}, {}, math.inf, "x"),
        ({"x": math.nan}, {"x": 1.0}, math.inf, "x"),
        ({"x": 1.0}, {"x": math.inf}, math.inf, "x"),
        ({"x": math.nan, "y": 1}, {"y": 1, "x": math.nan}, 0.0, "x"),
    ],
)
def test_json(tmp_path: Path, one: Any, other: Any, size: float, where: str) -> None:
    found = compare_files(text(tmp_path / "a.json", one), text(tmp_path / "b.json", other))
    assert found == Difference(size, where)


def test_tables(tmp_path: Path) -> None:
    first = text(tmp_path / "a.csv", "client,round,accuracy\nsite-9,1,0.5\nsite-9,2,0.75\n")
    second = text(tmp_path / "b.csv", "client,round,accuracy\nsite-9,1,0.5\nsite-9,2,0.50\n")
    assert compare_files(first, second) == Difference(0.25, "[1].accuracy")
    other = text(tmp_path / "c.csv", "client,round,accuracy\nsite-9,1,0.5\nsite-9,3,0.75\n")
    assert compare_files(first, other) == Difference(math.inf, "[1].round")


def test_of_unknown_files_every_byte_counts(tmp_path: Path) -> None:
    assert math.isinf(compare_files(text(tmp_path / "a.svg", "x"), text(tmp_path / "b.svg", "y")).size)
