"""Tensors on disk: safetensors with a JSON sidecar, written whole or not at all, checked when read.

A file `x.safetensors` holds the numbers; its sidecar `x.json` describes them: a kind ("leakpipe/update"), the name,
shape and dtype of every tensor, the SHA-256 of the safetensors file, and free metadata. Nothing is ever unpickled.
Arrays are numpy's, so reading needs no torch.
"""

import glob
import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np
from safetensors.numpy import load, save

from leakpipe.errors import LeakpipeError
from leakpipe.files.log import note_read, note_written

FORMAT_VERSION = 1
MOST_LEVELS = 100  # of nested JSON
Arrays = dict[str, np.ndarray]


@contextmanager
def write_atomically(path: Path, *, sha256: str | None = None) -> Iterator[IO[bytes]]:
    """Opens a temporary file beside `path` that replaces it on success and is removed on failure.

    Temporary files of a killed writer of the same file are removed first.

    Args:
        path: Final path.
        sha256: Digest of what is about to be written, where it is known already.

    Raises:
        LeakpipeError: The file cannot be written there.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left_behind in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
            left_behind.unlink(missing_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o666 & ~_current_umask())
        temporary.replace(path)
        note_written(path, sha256)
    except OSError as error:
        raise LeakpipeError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _current_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def write_text(path: Path, text: str) -> None:
    """Writes text (UTF-8) atomically."""
    with write_atomically(path) as stream:
        stream.write(text.encode())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON atomically; NaN and infinity raise `ValueError`."""
    write_text(path, _to_text(content))


def _to_text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object; raises `LeakpipeError` if the file is missing or holds none."""
    text = read_whole(path)
    try:
        content = json.loads(
            text.decode(),
            object_pairs_hook=_refuse_repetition,
            parse_constant=_refuse_constant,
            parse_float=_read_finite,
            parse_int=_read_integer,
        )
        _check_depth(content)
        if re.search(rb"\\u[dD][89a-fA-F]", text):  # half of a pair of surrogates is no text that could be written
            json.dumps(content, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise LeakpipeError(f"{path}: is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise LeakpipeError(f"{path}: expected a JSON object, got {type(content).__name__}")
    note_read(path)
    return content


def read_whole(path: Path) -> bytes:
    """Returns the content of a file; raises `LeakpipeError` for all that is none, so that no pipe is waited for."""
    try:
        if path.exists() and not path.is_file():
            raise LeakpipeError(f"{path}: cannot be read: it is not a regular file")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # the latter of a name that no file can have
        raise LeakpipeError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _check_depth(content: object) -> None:
    """Refuses content that is nested so deeply that walking it might end in a RecursionError."""
    level = [content]
    for _ in range(MOST_LEVELS):
        inner = (each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list))
        level = [child for children in inner for child in children]
    if level:
        raise ValueError(f"it is nested more than {MOST_LEVELS} deep")


def _refuse_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a JSON object; Python alone would keep the last of two values under one key."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
    return content


def _read_finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f"{text[:20]} is larger than floating-point numbers can be")
    return float(text)


def _read_integer(text: str) -> int:
    _read_finite(text)
    return int(text)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def sidecar_path(path: Path) -> Path:
    """Returns the path of the JSON sidecar of a safetensors file."""
    return path.with_suffix(".json")


def write_arrays(path: Path, kind: str, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
    """Writes `arrays` to `path` and their description to its sidecar.

    Args:
        path: Ends in `.safetensors`.
        kind: What the file holds, for instance "leakpipe/update"; `read_arrays` requires the same.
        arrays: Arrays by name; floating-point values must be finite.
        metadata: JSON-serialisable.

    Raises:
        LeakpipeError: The file cannot be written there, or a value is not finite.
    """
    contiguous = {name: np.asarray(array, order="C") for name, array in sorted(arrays.items())}
    _check_finite(path, contiguous)
    content = save(contiguous)
    sha256 = hashlib.sha256(content).hexdigest()
    sidecar = {
        "kind": kind,
        "version": FORMAT_VERSION,
        "sha256": sha256,
        "tensors": _describe(contiguous),
        "metadata": dict(metadata),
    }
    description = _to_text(sidecar)  # before anything is written: it may not be JSON
    with write_atomically(path, sha256=sha256) as stream:
        stream.write(content)
    write_text(sidecar_path(path), description)


def read_arrays(path: Path, kind: str) -> tuple[Arrays, dict[str, Any]]:
    """Reads arrays and metadata that `write_arrays` wrote, and checks everything about them.

    Raises:
        LeakpipeError: The file or its sidecar is missing, truncated, of another kind, or does not hold
            the tensors that the sidecar lists; or a value is not finite.
    """
    sidecar = read_json(sidecar_path(path))
    if sidecar.get("kind") != kind or sidecar.get("version") != FORMAT_VERSION:
        found = f"{sidecar.get('kind')!r} version {sidecar.get('version')!r}"
        raise LeakpipeError(f"{sidecar_path(path)}: kind: {found}, expected {kind!r} version {FORMAT_VERSION}")
    content = read_whole(path)
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != sidecar.get("sha256"):
        raise LeakpipeError(f"{path}: is truncated or not the file its sidecar {sidecar_path(path).name} describes")
    try:
        arrays: Arrays = load(content)
    except Exception as error:  # safetensors raises types of its own
        raise LeakpipeError(f"{path}: is not a safetensors file: {error}") from error
    if _describe(arrays) != sidecar.get("tensors"):
        raise LeakpipeError(f"{path}: tensors differ from those listed in {sidecar_path(path).name}")
    _check_finite(path, arrays)
    note_read(path, sha256)
    metadata = sidecar.get("metadata")
    if not isinstance(metadata, dict):
        raise LeakpipeError(f"{sidecar_path(path)}: metadata: {metadata!r}, expected an object")
    return arrays, metadata


def require_array(path: Path, arrays: Mapping[str, np.ndarray], name: str, *dimensions: int) -> np.ndarray:
    """Returns an array of a file; raises `LeakpipeError` unless it is there with as many axes as `dimensions` allow."""
    if name not in arrays or arrays[name].ndim not in dimensions:
        wanted = " or ".join(map(str, dimensions))
        raise LeakpipeError(f"{path}: tensor {name!r} with {wanted} dimensions is missing")
    return arrays[name]


def require_whole(value: object) -> int:
    """Returns a whole number from 0 of a sidecar; raises `TypeError` for all else (`int` would cut fractions off)."""
    if type(value) is not int or value < 0:  # True is one for isinstance
        raise TypeError(f"{str(value)[:40]!r}, expected a whole number from 0")
    return value


def require_wholes(value: object) -> tuple[int, ...]:
    """Returns the whole numbers of a list; raises `TypeError` for all else (empty text would pass for none)."""
    if not isinstance(value, list | tuple):
        raise TypeError(f"{str(value)[:40]!r}, expected a list")
    return tuple(map(require_whole, value))


def require_object(value: object) -> dict[str, Any]:
    """Returns an object of a sidecar; raises `TypeError` for all else (`dict` would take an empty list)."""
    if not isinstance(value, dict):
        raise TypeError(f"{str(value)[:40]!r}, expected an object")
    return value


def require_cell(value: object) -> dict[str, str | int]:
    """Returns the cell of a sidecar: names, and whole numbers for seed and round; raises `TypeError` for all else."""
    cell = require_object(value)
    for name, found in cell.items():
        if name in ("seed", "round"):
            require_whole(found)
        elif not isinstance(found, str):
            raise TypeError(f"{name}: {str(found)[:40]!r}, expected a name")
    return cell


def require_number(value: object) -> float:
    """Returns a number of a sidecar; raises `TypeError` for all else (`float` would take text and true)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{str(value)[:40]!r}, expected a number")
    return float(value)


def require_seed(path: Path, content: Mapping[str, Any]) -> int:
    """Returns the seed that a file says it is of; `LeakpipeError` if it says none."""
    seed = content.get("seed")
    if type(seed) is not int:  # True is one for isinstance
        raise LeakpipeError(f"{path}: seed: {seed!r}, expected a whole number")
    return seed


def _describe(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    return {name: {"shape": list(array.shape), "dtype": array.dtype.name} for name, array in sorted(arrays.items())}


def _check_finite(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        if np.issubdtype(array.dtype, np.inexact) and not np.isfinite(array).all():
            raise LeakpipeError(f"{path}: tensor {name!r} holds values that are not finite (NaN or infinity)")
