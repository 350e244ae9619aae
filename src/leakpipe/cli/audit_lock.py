"""One audit of a name at a time in a folder, and what a killed one left locked."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leakpipe.errors import LeakpipeError

OF_SNAKEMAKE = Path(".snakemake/locks")


@contextmanager
def hold(audit: str) -> Iterator[tuple[int, ...]]:
    """Keeps others from running the same audit here; yields file descriptors that keep it held in whoever has them.

    The system lets go of it when the last process that has them ends, whatever ended it. So the locks that Snakemake
    left for this audit are those of a killed run, and are removed. On file systems without locks nothing is held.

    Raises:
        LeakpipeError: Another process runs it.
    """
    path = Path(".leakpipe/locks") / f"{audit}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LeakpipeError(
                f"{path}: another `leakpipe audit` runs {audit!r} in this folder; wait for it, or end it first"
            ) from error
        except OSError:
            yield ()
            return
        for lock in OF_SNAKEMAKE.glob("*.lock"):
            if any(line.startswith(f"results/audit/{audit}/") for line in lock.read_text().splitlines()):
                lock.unlink()
        yield (stream.fileno(),)
