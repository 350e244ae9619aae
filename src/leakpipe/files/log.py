"""Which files a job reads and writes, with their SHA-256: noted where files are read and written, kept in run records.

Commands need not list their files: `leakpipe.files.storage` and the readers of tables and weights note them here.
Nothing is hashed while nobody watches.
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
        """Files read that the job did not write itself, as `outputs` lists them."""
        return _listed({path: sha for path, sha in self.read.items() if path not in self.written})

    def outputs(self) -> dict[str, str]:
        """Files written, sorted, without those that are gone (checkpoints).

        Paths are relative to the working folder; of a file elsewhere only the name is kept, so that a record can be
        published.
        """
        return _listed(self.written)


_watching: ContextVar[FileLog | None] = ContextVar("leakpipe_file_log", default=None)


@contextmanager
def watch_files() -> Iterator[FileLog]:
    """Note every file read and written inside the block."""
    log = FileLog()
    token = _watching.set(log)
    try:
        yield log
    finally:
        _watching.reset(token)


def note_read(path: Path) -> None:
    """Say that a file was read; the first time counts."""
    log = _watching.get()
    if log is not None and path not in log.read:
        log.read[path] = hash_file(path)


def note_written(path: Path) -> None:
    """Say that a file was written; the last time counts."""
    log = _watching.get()
    if log is not None:
        log.written[path] = hash_file(path)


def hash_file(path: str | Path) -> str:
    """SHA-256 of a file's content, in hex ("" for a link that leads to no file)."""
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
