"""Reads numpy's files: `.npz` archives, named or as Flower's `savez(*ndarrays)`, and the arrays in its messages."""

import io
import math
import re
import zipfile
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from leakpipe.captured.limits import checked_members
from leakpipe.captured.state import CapturedState, listed_tensors, named_tensors
from leakpipe.errors import LeakpipeError

POSITIONAL = re.compile(r"arr_(\d+)")  # numpy's names for arrays that were given none
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_npz(path: Path, archive: zipfile.ZipFile) -> CapturedState:
    """Reads the arrays of an `.npz` archive; `LeakpipeError` if one is hostile, truncated or holds Python objects."""
    arrays: dict[str, np.ndarray] = {}
    for member in checked_members(path, archive):
        name = member.filename.removesuffix(".npy")
        if name in arrays:
            raise LeakpipeError(f"{path}: holds two arrays named {name!r:.60}")
        with archive.open(member) as stream:
            arrays[name] = read_npy(path, name, stream, member.file_size)
    positions = [POSITIONAL.fullmatch(name) for name in arrays]
    found = f"{path.name}: {len(arrays)} arrays of an npz file"
    if not all(positions):
        return CapturedState(path, named_tensors(path, arrays), notes=(f"{found}, by name.",))
    order = sorted(arrays, key=lambda name: int(name.removeprefix("arr_")))
    if order != [f"arr_{position}" for position in range(len(order))]:
        raise LeakpipeError(f"{path}: positions {order[0]} to {order[-1]} are not complete: an array is missing")
    tensors = listed_tensors(path, (arrays[name] for name in order))
    return CapturedState(path, tensors, positional=True, notes=(f"{found}, by position.",))


def read_npy(path: Path, name: str, stream: IO[bytes], size: int) -> np.ndarray:
    """Reads one array of `size` bytes, header included; memory is taken only after the header fits the size.

    Raises:
        LeakpipeError: It is truncated, holds Python objects (which would have to be unpickled), or is no array.
    """
    try:
        shape, _, dtype = HEADERS[npy.read_magic(stream)](stream)
        numbers = math.prod(shape) * dtype.itemsize
    except Exception as error:  # numpy raises many types on damaged headers
        raise LeakpipeError(f"{path}: array {name!r:.60} has no numpy header: it is damaged or no array") from error
    if dtype.hasobject or dtype.kind not in "fiub":
        raise LeakpipeError(
            f"{path}: array {name!r:.60} is of dtype {dtype}, expected real numbers; save it as "
            "`array.astype('float32')`"
        )
    return _read_numbers(path, name, stream, size, numbers)


def read_npy_bytes(path: Path, name: str, content: bytes) -> np.ndarray:
    """Reads one array from the bytes that `numpy.save` writes; raises as `read_npy` does."""
    return read_npy(path, name, io.BytesIO(content), len(content))


def _read_numbers(path: Path, name: str, stream: IO[bytes], size: int, numbers: int) -> np.ndarray:
    start = stream.tell()
    if start + numbers != size:
        raise LeakpipeError(
            f"{path}: array {name!r:.60} holds {size - start} bytes, expected {numbers} by its header: it is truncated "
            "or damaged"
        )
    stream.seek(0)
    try:
        return np.asarray(npy.read_array(stream, allow_pickle=False))
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise LeakpipeError(f"{path}: array {name!r:.60} is damaged: {error}") from error
