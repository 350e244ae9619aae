"""Files that go to MLflow with a run. One that cannot be stored costs only itself.

A record may be somebody else's. What it names as artifacts is uploaded only if it is what its job wrote (its SHA-256 is
among the record's outputs), below the folder of results that the record is in, wherever links lead: a record cannot
have other files sent to a server.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leakpipe.files.log import hash_file
from leakpipe.records.run_record import RECORDS
from leakpipe.tracking.store import explain

if TYPE_CHECKING:
    from mlflow import MlflowClient

UNSTORED = "leakpipe.unstored"  # tag of a run: files that could not be stored yet
TAG_LENGTH = 5000
MOST_FAILURES = 3  # in one pass: a store that does not answer must cost seconds


def why_left_out(path: Path, record: tuple[Path, Mapping[str, Any]] | None = None) -> str:
    """Returns why a file is not uploaded, "" if it is.

    Args:
        path: The file.
        record: The run record that names it, and that record's own path; None for a file that the user named.
    """
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError):  # the latter of links in a circle, before Python 3.13
        return "is missing"
    if not real.is_file():
        return "is not a file"
    if record is not None:
        place, content = record
        folder = _results_folder(place)
        if not real.is_relative_to(folder.resolve()):
            return f"lies outside of {folder}, the results of its record,"
        if hash_file(real) not in content["outputs"].values():
            return "is not the file that its job wrote"
    return ""


def _results_folder(record: Path) -> Path:
    """Returns the folder of results that a run record is in: the one above `records`, else its own."""
    absolute = record.absolute()
    return next((folder.parent for folder in absolute.parents if folder.name == RECORDS), absolute.parent)


class Artifacts:
    """The artifacts of one pass.

    Args:
        client: MLflow.
        uri: Where MLflow is.
    """

    def __init__(self, client: "MlflowClient", uri: str) -> None:
        self._client, self._uri = client, uri
        self._unstored: dict[str, None] = {}
        self._reasons: list[str] = []

    def add(self, run_id: str, folders: Mapping[Path, str]) -> None:
        """Stores files with a run, whose tag `UNSTORED` then names those that could not be.

        Args:
            run_id: The run.
            folders: Where each file goes among the run's artifacts; `.` is the top.
        """
        unstored = [str(path) for path, folder in folders.items() if not self._store(run_id, path, folder)]
        self._unstored |= dict.fromkeys(unstored)
        if unstored:
            self._client.set_tag(run_id, UNSTORED, "\n".join(unstored)[:TAG_LENGTH])
        elif folders and UNSTORED in self._client.get_run(run_id).data.tags:
            self._client.delete_tag(run_id, UNSTORED)

    def _store(self, run_id: str, path: Path, folder: str) -> bool:
        if len(self._reasons) >= MOST_FAILURES:
            return False
        try:
            self._client.log_artifact(run_id, str(path), None if folder == "." else folder)
        except Exception as error:  # of a disk, a server, or the package of some cloud's store
            self._reasons.append(explain(error, self._uri))
            return False
        return True

    def notes(self) -> list[str]:
        """Returns a sentence that names every artifact that could not be stored once; nothing if there is none."""
        if not self._unstored:
            return []
        return [
            f"artifacts could not be stored ({self._reasons[0]}): {', '.join(self._unstored)}; "
            "all else was, and `leakpipe track` tries again"
        ]
