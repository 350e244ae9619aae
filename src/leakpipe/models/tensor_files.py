"""Files of tensors that others wrote: `.pth` and `.safetensors`, read without running what they may hold."""

import io
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from leakpipe.errors import LeakpipeError
from leakpipe.files.log import note_read
from leakpipe.models.state import Tensors

NESTED = ("state_dict", "model")  # where training scripts put the weights among other things


def read_tensors(path: Path, *, field: str) -> Tensors:
    """Tensors by name of a `.safetensors` or `.pth` file that `field` of the parameters names.

    Raises:
        LeakpipeError: It cannot be read, or is no such file.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LeakpipeError(f"{field}: {path}: cannot be read: {error.strerror or error}") from error
    note_read(path)
    return parse_tensors(content, path)


def parse_tensors(content: bytes, path: Path) -> Tensors:
    """What `content`, the bytes of `path`, holds.

    Pickles are read with torch's `weights_only`, which refuses everything but tensors and plain containers.

    Raises:
        LeakpipeError: It is no such file, or holds something else than tensors by name.
    """
    from safetensors.torch import load  # not among what importing this package needs

    try:
        if path.suffix == ".safetensors":
            return load(content)
        found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # both raise many types, some of their own
        reason = " ".join(str(error).split())[:120]
        raise LeakpipeError(f"{path}: is not a file of tensors: {type(error).__name__}: {reason}") from error
    for name in NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
    if not (isinstance(found, Mapping) and found and all(isinstance(value, Tensor) for value in found.values())):
        raise LeakpipeError(f"{path}: expected tensors by name, as `module.state_dict()` gives them")
    return found
