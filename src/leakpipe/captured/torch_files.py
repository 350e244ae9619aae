"""Reads torch's files without running code of theirs: state dicts, and checkpoints that hold one.

So do NVFlare's `FL_global_model.pt` ("model"), MONAI bundles' `model.pt` and Lightning's checkpoints ("state_dict").
"""

import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from leakpipe.captured.limits import checked_members
from leakpipe.captured.state import CapturedState, listed_tensors, named_tensors
from leakpipe.errors import LeakpipeError

SAVE_WEIGHTS = 'where the file is trusted, write `torch.save({"state_dict": model.state_dict()}, …)` there'
EXTRA = "_extra_state"  # torch's own key for what modules store besides tensors
DEEPEST = 4


def check_archive(path: Path, archive: zipfile.ZipFile) -> None:
    """Checks the archive that `torch.save` writes: it is not compressed, so that it cannot grow when it is read."""
    members = checked_members(path, archive)
    if any("/code/" in member.filename or member.filename.endswith("constants.pkl") for member in members):
        raise LeakpipeError(
            f"{path}: is a TorchScript program; save its weights instead: "
            "`torch.save(torch.jit.load(…).state_dict(), …)`"
        )
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise LeakpipeError(f"{path}: is a compressed archive, which torch does not write; save the state again")


def read_torch(path: Path) -> CapturedState:
    """Reads the weights of a torch file; `LeakpipeError` where it needs more than tensors in plain containers."""
    places: set[str] = set()

    def to_cpu(storage: Any, place: str) -> Any:
        places.add(place)
        return storage

    try:
        with path.open("rb") as stream:  # given a path, torch goes by its suffix
            found = torch.load(stream, map_location=to_cpu, weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"(?:GLOBAL|global|function) ([\w.]+\.\w+)", str(error))
        what = f"more than tensors ({named[1]:.60})" if named else "no state that can be read without running its code"
        raise LeakpipeError(f"{path}: holds {what}; nothing of it was run; {SAVE_WEIGHTS}") from error
    except Exception as error:  # torch raises many types on damaged files
        reason = " ".join(str(error).split())[:80]
        raise LeakpipeError(f"{path}: is truncated or damaged: {type(error).__name__}: {reason}") from error
    notes = [f"{path.name}: a torch file."]
    if isinstance(found, list | tuple) and found and all(isinstance(value, Tensor) for value in found):
        notes.append(f"{path.name}: {len(found)} tensors by position.")
        return CapturedState(path, listed_tensors(path, found), positional=True, notes=tuple(notes))
    states = list(_states(found))
    if not states:
        raise LeakpipeError(f"{path}: holds no state, expected tensors by name, as `module.state_dict()` returns them")
    keys, tensors = _choose(path, states)
    if keys:
        notes.append(f"{path.name}: the weights lie under {'.'.join(keys)!r}.")
    if left := sorted(places - {"cpu"}):
        notes.append(f"{path.name}: was saved on {', '.join(left)} and read to the CPU.")
    return CapturedState(path, named_tensors(path, tensors), notes=tuple(notes))


def _states(found: object) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Yields the mappings from names to tensors in nested ones, with the keys that lead there; each mapping once."""
    waiting: list[tuple[tuple[str, ...], object]] = [((), found)]
    seen: set[int] = set()
    for keys, value in waiting:
        if not isinstance(value, Mapping) or id(value) in seen or len(keys) > DEEPEST:
            continue
        seen.add(id(value))
        named = {name: each for name, each in value.items() if not str(name).endswith(EXTRA)}
        if named and all(isinstance(each, Tensor) and isinstance(name, str) for name, each in named.items()):
            yield keys, named
        else:
            waiting += [((*keys, str(key)), each) for key, each in value.items()]


def _choose(
    path: Path, states: list[tuple[tuple[str, ...], dict[str, Tensor]]]
) -> tuple[tuple[str, ...], dict[str, Tensor]]:
    """Returns the state of the network: the one under a usual name, or the only one."""
    usual = ("state_dict", "model_state_dict", "model", "model_state", "net", "network", "weights", "module")
    for name in usual:
        for keys, tensors in states:
            if keys and keys[-1] == name:
                return keys, tensors
    if len(states) > 1:
        found = ", ".join(repr(".".join(keys)) for keys, _ in states[:4])
        raise LeakpipeError(
            f'{path}: holds {len(states)} states ({found}), expected one; save the network\'s as {{"state_dict": …}}'
        )
    return states[0]
