"""Reads the state or update that a federation left in a file, whatever framework wrote it.

The format is recognised by content, not by the file's name. Nothing in a file is run, and sizes that it declares are
checked before memory is taken for them.
"""

import zipfile
from collections.abc import Callable
from pathlib import Path

from leakpipe.captured.arrays import read_npz
from leakpipe.captured.flower_files import read_flower
from leakpipe.captured.nvflare_files import START, read_dxo
from leakpipe.captured.safetensors_files import read_safetensors
from leakpipe.captured.state import CapturedState
from leakpipe.captured.torch_files import check_archive, read_torch
from leakpipe.errors import LeakpipeError
from leakpipe.files.log import note_read

FORMATS = "torch (.pt, .pth, .ckpt), safetensors, npz, NVFlare's DXO files and Flower's messages"
OTHERS = {
    b"\x89HDF": "an HDF5 file (Keras?): save the weights as npz, by torch's names",
    b"\x93NUMPY": "one numpy array: save all of them with `numpy.savez`",
    b"\x1f\x8b": "compressed with gzip: unpack it first",
    b"ustar": "a tar archive: unpack it first",
}


def read_state(path: Path) -> CapturedState:
    """Reads a state (or a difference of states) from a file of any of these formats.

    torch files with a state dict or a checkpoint around it (NVFlare's `FL_global_model.pt`, MONAI's `model.pt`,
    Lightning's), safetensors, npz by name or by position, NVFlare's DXO files, Flower's messages, leakpipe's captures.

    Raises:
        LeakpipeError: The file is missing, of another format, truncated or hostile, or needs more than tensors; the
            message says what to do.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(512)
        state = _reader(path, start)(path)
    except OSError as error:
        raise LeakpipeError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not state.tensors:
        raise LeakpipeError(f"{path}: holds no tensor")
    note_read(path)
    return state


def _reader(path: Path, start: bytes) -> Callable[[Path], CapturedState]:
    if not start:
        raise LeakpipeError(f"{path}: is empty")
    if start.startswith(b"PK"):
        return _read_archive
    if start[8:9] == b"{":
        return read_safetensors
    if start.startswith(b"\x80"):  # of pickle's protocol 2 and later: torch's format before version 1.6
        return read_torch
    for mark, what in OTHERS.items():
        if start.startswith(mark) or start[257:262] == mark:
            raise LeakpipeError(f"{path}: is {what}")
    return read_dxo if start.startswith(START) else _read_message


def _read_message(path: Path) -> CapturedState:
    """Reads what begins with no mark of its own."""
    state = read_flower(path)
    if state is None:
        raise LeakpipeError(f"{path}: is none of the formats that are read: {FORMATS}")
    return state


def _read_archive(path: Path) -> CapturedState:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
            if members and all(name.endswith(".npy") for name in members):
                return read_npz(path, archive)
            check_archive(path, archive)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        raise LeakpipeError(f"{path}: is a damaged or truncated archive: {error}") from error
    return read_torch(path)
