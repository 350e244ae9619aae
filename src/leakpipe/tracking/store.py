"""The address of MLflow, and a connection to it that fails within seconds and never shows credentials.

MLflow is imported inside functions, because importing it takes more than a second.
"""

import glob
import logging
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

from leakpipe.errors import LeakpipeError
from leakpipe.files.quoting import for_shell

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_URI = "sqlite:///mlflow.db"
LOCAL_PAGE = "http://127.0.0.1:5000"  # of `make ui`
MODEL_TRAINING = "workflowType=machine_learning"  # else MLflow's page may show what is for language models
VIEW = "leakpipe"  # the columns of the table of runs, saved in the experiment's tag `VIEW_TAG`
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
CONNECT_SECONDS, LOCK_SECONDS = 3, 600
# A server that does not answer must cost seconds only; one that has answered once may be slow. What the user has set
# takes precedence.
ALWAYS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
FIRST_ANSWER, LATER_ANSWERS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "3"}, {"MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}


class MlflowUnreachableError(LeakpipeError):
    """MLflow cannot be used now. Nothing is lost, because the run records are on disk."""

    def __init__(self, uri: str, reason: str) -> None:
        shown = without_credentials(uri)
        super().__init__(
            f"MLflow at {shown or repr(shown)} cannot be used: {reason}; "
            "nothing is lost: the run records are on disk, and `leakpipe track` (or the next snakemake) adds them later"
        )


def choose_uri(uri: str | None = None) -> str:
    """Returns `uri` if given, else MLFLOW_TRACKING_URI, else mlflow.db in the current folder."""
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def without_credentials(uri: str) -> str:
    """Returns `uri` as it may be shown: without user, password and query."""
    scheme, separator, rest = uri.partition("://") if "://" in uri else ("", "", uri)
    if scheme.startswith("sqlite"):  # a file, whose name may have any character but ?
        return scheme + separator + rest.partition("?")[0]
    return scheme + separator + re.split(r"[?#]", rest.rpartition("@")[2])[0]


def how_to_look(uri: str, experiment_id: str | None = None) -> str:
    """Returns a sentence on where runs can be seen: the page of a server, or how to start one for a store.

    Args:
        uri: Where MLflow is.
        experiment_id: The experiment whose table of runs the page opens on; without it, the list of experiments.
    """
    shown = without_credentials(uri)
    page = f"/{experiment_id}/runs?{MODEL_TRAINING}&viewStateShareKey={VIEW}" if experiment_id else f"?{MODEL_TRAINING}"
    if shown.startswith("http"):
        return f"Look at the runs at {shown.rstrip('/')}/#/experiments{page}"
    start = "make ui" if shown == DEFAULT_URI else f"MLFLOW_TRACKING_URI={for_shell(shown)} make ui"
    return f"Look at the runs with `{start}`, at {LOCAL_PAGE}/#/experiments{page}"


def newest_experiment(uri: str) -> str | None:
    """Returns the id of the experiment that has the newest run; None if there are no runs."""
    with connect(uri) as client:
        experiments = [each.experiment_id for each in client.search_experiments()]
        runs = client.search_runs(experiments, order_by=["attributes.start_time DESC"], max_results=1)
        return str(runs[0].info.experiment_id) if runs else None


@contextmanager
def connect(uri: str) -> Iterator["MlflowClient"]:
    """Yields a client of an MLflow that has answered.

    A sqlite store is locked for the whole pass, so that two passes never add a run twice, and a new store appears
    whole or not at all.

    Raises:
        MlflowUnreachableError: MLflow, the network, the database or the disk failed.
    """
    logged_before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # MLflow logs retries and migrations together with addresses
    try:
        database = database_file(uri)
        with _defaults(ALWAYS), _locked(database) if database else nullcontext():
            with _defaults(FIRST_ANSWER):
                client = _open(uri, database)
            with _defaults(LATER_ANSWERS):
                yield client
    except Exception as error:
        if isinstance(error, LeakpipeError) or not _is_store_failure(error):
            raise
        raise MlflowUnreachableError(uri, explain(error, uri)) from error
    finally:
        logging.disable(logged_before)


def _open(uri: str, database: Path | None) -> "MlflowClient":
    scheme = uri.rpartition("://")[0]
    if scheme in ("", "file") and uri != "databricks":
        raise MlflowUnreachableError(uri, "MLflow 3 keeps no runs in folders; give sqlite:///FILE or http://HOST:PORT")
    if database and not database.exists():
        _create_database(database)
    try:
        host, port = urlsplit(uri).hostname, urlsplit(uri).port
    except ValueError as error:
        raise MlflowUnreachableError(uri, f"this is not an address ({error})") from error
    if host and port and not scheme.startswith("http"):  # MLflow tries a database that does not answer for a minute
        socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    client.search_experiments(max_results=1)
    return client


def database_file(uri: str) -> Path | None:
    """Returns the file of a sqlite address, None for other addresses.

    SQLAlchemy takes all before the first ? as it is, and what follows as options. A folder with ? in its name can
    therefore only be named from inside, by a relative address.
    """
    scheme, _, rest = uri.partition("://")
    if scheme.partition("+")[0] != "sqlite":
        return None
    name, _, options = rest.removeprefix("/").partition("?")
    if not re.fullmatch(r"(\w+=[^/&]*(&\w+=[^/&]*)*)?", options):
        raise MlflowUnreachableError(
            uri,
            f"what follows ? are options of sqlite, expected NAME=VALUE, not {options}; "
            f"if ? is part of a folder's name, change into the folder and give {DEFAULT_URI}",
        )
    path = Path(name).absolute()
    if path.name == ":memory:" or path.is_dir() or not path.parent.is_dir():
        raise MlflowUnreachableError(uri, f"expected sqlite:///FILE in a folder that exists, not {path}")
    return path


def artifact_folder(database: Path) -> Path:
    """Returns the folder of a sqlite store's artifacts, which lies beside the file whatever the current folder is."""
    return database.parent / "mlartifacts"


def _create_database(path: Path) -> None:
    """Creates an empty MLflow database beside its place and moves it there.

    Creation takes a hundred transactions. The disk is waited for once, at the end: one second instead of six. The new
    file has a name of its own, because MLflow keeps a connection for every address, and its address is relative,
    because the folder's name may have a ?.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy import Engine, event

    def never_wait(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    for left_behind in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        left_behind.unlink()
    unfinished = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")
    event.listen(Engine, "connect", never_wait)
    try:
        with chdir(path.parent):
            address, artifacts = f"sqlite:///{unfinished.name}", artifact_folder(path).as_uri()
            SqlAlchemyStore(address, artifacts).engine.dispose()  # type: ignore[no-untyped-call]
    finally:
        event.remove(Engine, "connect", never_wait)
    with unfinished.open("rb") as stream:
        os.fsync(stream.fileno())
    unfinished.replace(path)


@contextmanager
def _locked(database: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = database.with_name(f"{database.name}.lock")  # not among the artifacts: that folder may not be writable
    try:
        with FileLock(lock, timeout=LOCK_SECONDS):
            yield
    except Timeout as error:
        raise MlflowUnreachableError(f"sqlite:///{database}", "another `leakpipe track` is using it") from error


@contextmanager
def _defaults(values: Mapping[str, str]) -> Iterator[None]:
    """Sets, for a while, environment variables that the user has not set: MLflow reads its settings from there."""
    missing = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            del os.environ[name]


def _is_store_failure(error: Exception) -> bool:
    """Returns whether MLflow, the network, the database or the disk failed, and not leakpipe."""
    if isinstance(error, OSError | ImportError):  # requests' errors are OSErrors; a database driver may be missing
        return True
    return any(cls.__module__.partition(".")[0] in ("mlflow", "sqlalchemy", "urllib3") for cls in type(error).__mro__)


def explain(error: Exception, uri: str) -> str:
    """Returns the cause in a few words; MLflow's own messages run over many lines and may quote credentials."""
    said = " ".join(str(error).split())
    if isinstance(error, TimeoutError | ConnectionError) or re.search(r"Max retries exceeded|timed out", said):
        return "it does not answer"
    if status := re.search(r"failed with error code (\d+)", said):
        return f"it answers with HTTP status {status[1]}" + (", access refused" if status[1] in ("401", "403") else "")
    if "not in a valid JSON format" in said:
        return "what answers there is not MLflow"
    if "unsupported URI" in said:
        return "MLflow knows no such kind of address; give sqlite:///FILE or http://HOST:PORT"
    variables = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
    if uri != without_credentials(uri) or any(os.environ.get(name) for name in variables):
        return type(error).__name__
    return said.partition(" (Background")[0].partition("[SQL:")[0].strip()[:200] or type(error).__name__


if __name__ == "__main__":  # for `make ui`
    print(how_to_look(choose_uri(), newest_experiment(choose_uri())))
