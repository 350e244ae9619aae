"""Reads the files that NVFlare's `DXO.to_file` writes, without NVFlare, which may load classes that a file names.

Such a file is made of sections: a marker, a type, a size of 8 bytes, the content. The first holds the object in
msgpack; the others hold long values, which the first refers to by a UUID. Objects are mappings with the name of a
class; only numbers, numpy's arrays and torch's tensors (safetensors) are read here.
"""

import struct
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load

from leakpipe.captured.arrays import read_npy_bytes
from leakpipe.captured.state import CapturedState, Kind, named_tensors
from leakpipe.errors import LeakpipeError

SECTION = struct.Struct(">BBQ")
MAIN, OTHERS = 100, (101, 102, 103)
DAMAGED = (ValueError, KeyError, TypeError, AttributeError, struct.error, RecursionError)  # also msgpack's own
START = bytes([MAIN, 0])
TYPE, DATA = "__fobs_type__", "__fobs_data__"
KINDS: dict[str, Kind] = {"WEIGHTS": "full", "WEIGHT_DIFF": "difference"}


def read_dxo(path: Path) -> CapturedState:
    """Reads the tensors of a DXO of kind WEIGHTS or WEIGHT_DIFF.

    Raises:
        LeakpipeError: msgpack is not installed; or the file is damaged, of another kind, of several clients, encrypted,
            or holds objects of other classes.
    """
    try:
        import msgpack
    except ImportError as error:
        raise LeakpipeError(
            f"{path}: is a file of NVFlare, which needs msgpack to be read: pip install 'leakpipe[frameworks]'"
        ) from error
    try:
        sections = _sections(path.read_bytes())
        main = msgpack.unpackb(sections.pop(""), strict_map_key=False)
        leaves = list(_leaves(main, ""))
        if len(leaves) == 1:
            _, kind, data, meta = leaves[0]
            values = {name: _value(path, str(name), value, sections) for name, value in data.items()}
    except DAMAGED as error:
        raise LeakpipeError(f"{path}: is no DXO of NVFlare, or a truncated one: {type(error).__name__}") from error
    if len(leaves) != 1:
        names = ", ".join(repr(leaf[0]) for leaf in leaves[:4])
        raise LeakpipeError(f"{path}: holds {len(leaves)} updates ({names}), expected that of one client")
    if kind not in KINDS:
        raise LeakpipeError(f"{path}: data_kind: {kind!r}, expected one of {', '.join(KINDS)}")
    steps = meta.get("NUM_STEPS_CURRENT_ROUND") if isinstance(meta, Mapping) else None
    facts = {"steps": steps} if isinstance(steps, int) and steps > 0 else {}
    notes = (f"{path.name}: a DXO of NVFlare, of kind {kind}.",)
    return CapturedState(path, named_tensors(path, values), kind=KINDS[kind], facts=facts, notes=notes)


def _sections(content: bytes) -> dict[str, bytes]:
    """Returns the main section (under "") and the others, under their UUIDs; raises `ValueError` if one is cut."""
    found: dict[str, bytes] = {}
    position = 0
    while position < len(content):
        marker, _, size = SECTION.unpack_from(content, position)
        position += SECTION.size
        section = content[position : position + size]
        if len(section) != size or (marker != MAIN and marker not in OTHERS):
            raise ValueError(marker)
        position += size
        found[str(uuid.UUID(bytes=section[:16])) if marker != MAIN else ""] = section[16 * (marker != MAIN) :]
    return found


def _leaves(found: Any, name: str) -> Iterator[tuple[str, Any, dict[Any, Any], Any]]:
    """Yields name, kind, data and meta of a DXO, or of each in a collection."""
    if found[TYPE] != "nvflare.apis.dxo.DXO":
        raise ValueError(found[TYPE])
    content = found[DATA]
    if isinstance(content, Mapping):
        content = [content["data"][key] for key in ("data_kind", "data", "meta")]
    kind, data, meta = content  # before version 2.5 it was a list
    kind = kind[DATA] if isinstance(kind, Mapping) else kind
    if kind == "COLLECTION":
        for each, value in data.items():
            yield from _leaves(value, f"{name}{each}")
    else:
        yield name, kind, data, meta


def _value(path: Path, name: str, value: Any, sections: Mapping[str, bytes]) -> object:
    """Returns a tensor, an array or a number of the DXO's data."""
    if isinstance(value, bool | int | float):
        return np.asarray(value)
    kind, content = value[TYPE], value[DATA]
    if isinstance(content, Mapping) and content.get("type") == "native":
        content = content["data"]
    if isinstance(content, Mapping):
        content = sections[content[DATA]["data"]["datum_id"]]
    if kind == "numpy.ndarray":
        return read_npy_bytes(path, name, content)
    if kind == "torch.Tensor":
        try:
            return load(content)["t"]
        except Exception as error:  # safetensors raises types of its own
            raise ValueError(name) from error
    if kind.startswith("numpy.") and isinstance(content, int | float):
        return np.asarray(content, dtype=kind.removeprefix("numpy."))
    what = "encrypted" if "CKKS" in kind else f"a {kind:.40}"
    raise LeakpipeError(f"{path}: {name!r:.60} is {what}, expected an array or a tensor")
