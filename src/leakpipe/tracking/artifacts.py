"""Files that go to MLflow with a run. One that cannot be stored costs only itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from leakpipe.tracking.store import explain

if TYPE_CHECKING:
    from mlflow import MlflowClient

UNSTORED = "leakpipe.unstored"  # tag of a run: files that could not be stored yet
TAG_LENGTH = 5000
MOST_FAILURES = 3  # in one pass: a store that does not answer must cost seconds


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
