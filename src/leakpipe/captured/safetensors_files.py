"""Reads safetensors files, and what the sidecar of leakpipe's own captures says of them."""

import struct
from pathlib import Path

from safetensors.torch import load_file

from leakpipe.captured.state import KINDS, CapturedState, listed_tensors, named_tensors
from leakpipe.captured.writing import CAPTURED
from leakpipe.errors import LeakpipeError
from leakpipe.files.storage import read_arrays, read_json, sidecar_path

LARGEST_HEADER = 100 * 2**20  # of safetensors itself


def read_safetensors(path: Path) -> CapturedState:
    """Reads a safetensors file; with a sidecar of leakpipe's beside it, checks the file against it.

    Raises:
        LeakpipeError: The file is truncated, its header is not one, or it is not the file that its sidecar describes.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        (header,) = struct.unpack("<Q", stream.read(8))
    if header > min(LARGEST_HEADER, size - 8):
        raise LeakpipeError(
            f"{path}: declares a header of {header} bytes in a file of {size}: it is truncated or damaged"
        )
    sidecar = sidecar_path(path)
    if sidecar.is_file() and read_json(sidecar).get("kind") == CAPTURED:
        arrays, facts = read_arrays(path, CAPTURED)
        kind = facts.get("kind")
        if kind not in KINDS:
            raise LeakpipeError(f"{sidecar}: metadata.kind: {kind!r}, expected one of {', '.join(KINDS)}")
        positional = facts.get("positional") is True and all(name.isdecimal() for name in arrays)
        notes = (f"{path.name}: captured by leakpipe.",)
        ordered = [arrays[name] for name in sorted(arrays, key=int)] if positional else []
        tensors = listed_tensors(path, ordered) if positional else named_tensors(path, arrays)
        return CapturedState(path, tensors, positional=positional, kind=kind, facts=facts, notes=notes)
    try:
        tensors = load_file(path)
    except Exception as error:  # safetensors raises types of its own
        reason = " ".join(str(error).split())[:80]
        raise LeakpipeError(f"{path}: is no safetensors file, or a truncated one: {reason}") from error
    return CapturedState(path, named_tensors(path, tensors), notes=(f"{path.name}: a safetensors file.",))
