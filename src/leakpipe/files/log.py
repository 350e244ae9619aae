"""The files that a job reads and writes, with their SHA-256, for its run record.

Commands need not list their files: `leakpipe.files.storage` and the readers of tables and weights note them here.
Nothing is hashed outside a `watch_files` block.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class FileLog:
    """Files by path, each with its SHA-256 in hex."""

    read: dict[Path, str] = field(default_factory=dict)
    written: dict[Path, str] = field(default_factory=dict)

    def inputs(self) -> dict[str, str]:
        """Returns the files read that the job did not write itself, by path as in `outputs`."""
        return _listed({path: sha for path, sha in self.read.items() if path not in self.written})

    def outputs(self) -> dict[str, str]:
        """Returns the files written that still exist (checkpoints do not), sorted.

        Paths are relative to the working folder; only the name of a file elsewhere is kept, so that records can be
        published.
        """
        return _listed(self.written)


_watching: ContextVar[FileLog | None] = ContextVar("leakpipe_file_log", default=None)


@contextmanager
def watch_files() -> Iterator[FileLog]:
    """Notes every file read and written inside the block."""
    log = FileLog()
    token = _watching.set(log)
    try:
        yield log
    finally:
        _watching.reset(token)


def note_read(path: Path, sha256: str | None = None) -> None:
    """Notes that a file was read, with its digest if that is known; the first time counts."""
    log = _watching.get()
    if log is not None and path not in log.read:
        log.read[path] = sha256 or hash_file(path)


def note_written(path: Path, sha256: str | None = None) -> None:
    """Notes that a file was written, with its digest if that is known; the last time counts."""
    log = _watching.get()
    if log is not None:
        log.written[path] = sha256 or hash_file(path)


def hash_file(path: str | Path) -> str:
    """Returns the SHA-256 of a file's content in hex; "" for a link that leads to no file."""
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (FileNotFoundError, IsADirectoryError):
        return ""


def _listed(files: Mapping[Path, str]) -> dict[str, str]:
    return dict(sorted((_published(path), sha) for path, sha in files.items() if path.is_file()))


def _published(path: Path) -> str:
    full, here = path.absolute(), Path.cwd()
    return str(full.relative_to(here)) if full.is_relative_to(here) else path.name
