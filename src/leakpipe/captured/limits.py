"""The limits of files from elsewhere: they name no files outside, and do not grow without bounds when unpacked."""

import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from leakpipe.errors import LeakpipeError

MOST_BYTES = 32 * 2**30
ALWAYS_ALLOWED = 256 * 2**20
MOST_GROWTH = 64
LONGEST_NAME = 1000


def check_growth(path: Path, unpacked: int) -> None:
    """Raises `LeakpipeError` where a file's tensors are far larger than the file (a "zip bomb").

    Args:
        path: The file.
        unpacked: Bytes of all its tensors.
    """
    most = min(MOST_BYTES, max(ALWAYS_ALLOWED, MOST_GROWTH * path.stat().st_size))
    if unpacked > most:
        raise LeakpipeError(
            f"{path}: unpacks to {unpacked / 2**20:.0f} MiB, expected at most {most / 2**20:.0f} MiB for a file of its "
            "size; nothing of it was unpacked: save the state again, uncompressed"
        )


def check_names(path: Path, names: Iterable[object]) -> None:
    """Raises `LeakpipeError` unless all names are printable text that cannot name a file outside a folder."""
    for name in names:
        if not isinstance(name, str):
            raise LeakpipeError(f"{path}: a tensor is named {name!r:.60}, expected text as `state_dict()` has it")
        parts = PurePosixPath(name.replace("\\", "/"))
        if not name.isprintable() or len(name) > LONGEST_NAME or parts.is_absolute() or ".." in parts.parts:
            raise LeakpipeError(
                f"{path}: a tensor is named {name!r:.60}, expected printable text that is no path to another folder"
            )


def checked_members(path: Path, archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Returns the members of a zip archive; raises `LeakpipeError` where names or declared sizes are hostile.

    No member yields more bytes than it declares: `zipfile` reads no further.
    """
    members = archive.infolist()
    check_names(path, (member.filename for member in members))
    check_growth(path, sum(member.file_size for member in members))
    return members
