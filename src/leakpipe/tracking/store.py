"""Where MLflow is: addresses without credentials, a connection that fails in seconds, a store made whole.

MLflow is imported inside functions: importing this costs nothing.
"""

import logging
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from leakpipe.errors import LeakpipeError

if TYPE_CHECKING:
    from sqlite3 import Connection

    from mlflow import MlflowClient

DEFAULT_URI = "sqlite:///mlflow.db"

# A server that is away must cost seconds; one that has answered once may be slow. What the user set stays.
FIRST_ANSWER = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "3"}
LATER_ANSWERS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
CONNECT_SECONDS, LOCK_SECONDS = 3, 600


class MlflowUnreachableError(LeakpipeError):
    """MLflow cannot be used now; the run records are on disk, so nothing is lost."""


def choose_uri(uri: str | None = None) -> str:
    """`uri` if given, else MLFLOW_TRACKING_URI, else mlflow.db in the current folder."""
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def without_credentials(uri: str) -> str:
    """`uri` as it may be shown: without user, password and query."""
    scheme, separator, rest = uri.partition("://") if "://" in uri else ("", "", uri)
    if not scheme.startswith("sqlite"):
        rest = rest.rpartition("@")[2]
    return scheme + separator + re.split(r"[?#]", rest)[0]


def how_to_look(uri: str) -> str:
    """A sentence on where runs can be seen: a server's page, or the command that shows a store."""
    shown = without_credentials(uri)
    where = f"at {shown}" if shown.startswith("http") else f"with: mlflow ui --backend-store-uri {shown}"
    return f"Look at them {where}"


@contextmanager
def connect(uri: str) -> Iterator["MlflowClient"]:
    """A client of an MLflow that has answered; whatever MLflow fails at becomes one sentence.

    A sqlite store is held alone for the whole pass (so two passes never add a run twice), and a new one
    appears whole or not at all.
    """
    patience = {name: value for name, value in FIRST_ANSWER.items() if name not in os.environ}
    more = {name: value for name, value in LATER_ANSWERS.items() if name in patience}
    try:
        bare, credentials = _split_credentials(uri)
        with _quietly(), _environment(patience | QUIET | credentials):
            database = database_file(uri)
            with _held_alone(database):
                client = _open(bare, database)
                with _environment(more):
                    yield client
    except LeakpipeError:
        raise
    except Exception as error:
        if not _is_store_failure(error):
            raise
        raise _unreachable(uri, _reason(error)) from error


def _split_credentials(uri: str) -> tuple[str, dict[str, str]]:
    """A web address without user and password, which MLflow would print, and the variables to give them by."""
    scheme, _, rest = uri.partition("://")
    before, at, host = rest.rpartition("@")
    if scheme not in ("http", "https") or not at:
        return uri, {}
    user, _, password = before.partition(":")
    names = {"MLFLOW_TRACKING_USERNAME": unquote(user), "MLFLOW_TRACKING_PASSWORD": unquote(password)}
    return f"{scheme}://{host}", names


def _open(uri: str, database: Path | None) -> "MlflowClient":
    scheme = uri.partition(":")[0] if ":" in uri else ""
    if scheme in ("", "file") and uri != "databricks":
        raise _unreachable(uri, "MLflow 3 keeps no runs in plain folders; give sqlite:///FILE or http://HOST:PORT")
    if database and not database.exists():
        _create_database(database)
    elif not database:
        _check_address(uri, is_web=scheme in ("http", "https"))
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    client.search_experiments(max_results=1)
    return client


def _check_address(uri: str, *, is_web: bool) -> None:
    try:
        host, port = urlsplit(uri).hostname, urlsplit(uri).port
    except ValueError as error:
        raise _unreachable(uri, f"this is not an address ({error})") from error
    if not is_web and host and port:  # MLflow itself tries a database that is away for a minute
        socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()


def database_file(uri: str) -> Path | None:
    """The file of a sqlite address; None for other addresses."""
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme.split("+")[0] != "sqlite":
        return None
    path = Path(re.split(r"[?#]", rest.removeprefix("/"))[0])
    if not path.name or path.name == ":memory:" or path.is_dir():
        raise _unreachable(uri, "expected sqlite:///FILE")
    if not path.absolute().parent.is_dir():
        raise _unreachable(uri, f"there is no folder {path.absolute().parent}")
    return path.absolute()


def artifact_folder(database: Path) -> Path:
    """Where a sqlite store keeps artifacts: beside it, wherever the command is called from."""
    return database.parent / "mlartifacts"


def _create_database(path: Path) -> None:
    """Create an empty MLflow database beside its place, then move it there (making it takes seconds).

    MLflow takes a hundred transactions; the disk is waited for once, at the end, and not after each.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy import Engine, event

    unfinished = path.with_name(f".{path.name}.part")
    unfinished.unlink(missing_ok=True)
    event.listen(Engine, "connect", _never_wait)
    try:
        store = SqlAlchemyStore(f"sqlite:///{unfinished}", artifact_folder(path).as_uri())  # type: ignore[no-untyped-call]
        store.engine.dispose()
    finally:
        event.remove(Engine, "connect", _never_wait)
    with unfinished.open("rb") as stream:
        os.fsync(stream.fileno())
    unfinished.replace(path)


def _never_wait(connection: "Connection", _record: object) -> None:
    connection.execute("PRAGMA synchronous = OFF")


@contextmanager
def _held_alone(database: Path | None) -> Iterator[None]:
    if database is None:
        yield
        return
    from filelock import FileLock, Timeout

    lock = artifact_folder(database) / f"{database.name}.lock"
    lock.parent.mkdir(exist_ok=True)
    try:
        with FileLock(lock, timeout=LOCK_SECONDS):
            yield
    except Timeout as error:
        raise _unreachable(f"sqlite:///{database}", "another `leakpipe track` is at work there") from error


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a while (MLflow reads its settings from there)."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, old in before.items():
            if old is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = old


@contextmanager
def _quietly() -> Iterator[None]:
    """MLflow logs its retries and migrations, with addresses; what matters is said by the error."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _is_store_failure(error: Exception) -> bool:
    """Whether MLflow, the network, the database or the disk failed, and not leakpipe."""
    if isinstance(error, OSError | ImportError):  # requests' errors are OSErrors; a database driver may be missing
        return True
    return any(cls.__module__.partition(".")[0] in ("mlflow", "sqlalchemy", "urllib3") for cls in type(error).__mro__)


def _reason(error: Exception) -> str:
    """Say in a few words what went wrong; MLflow's own messages run over many lines."""
    said = " ".join(str(error).split())
    if isinstance(error, TimeoutError | ConnectionError) or re.search(r"Max retries exceeded|timed out", said):
        return "it does not answer"
    if status := re.search(r"failed with error code (\d+)", said):
        refused = status[1] in ("401", "403")
        return f"{'it refuses access' if refused else 'what answers there is not MLflow'} (HTTP status {status[1]})"
    if "not in a valid JSON format" in said:
        return "what answers there is not MLflow"
    if "unsupported URI" in said:
        return "MLflow knows no such kind of address; give sqlite:///FILE or http://HOST:PORT"
    if isinstance(error, ImportError):
        return f"its database driver is not installed ({said})"
    return said.partition(" (Background")[0].partition("[SQL:")[0].strip()[:200] or type(error).__name__


def _unreachable(uri: str, reason: str) -> MlflowUnreachableError:
    shown = without_credentials(uri)
    return MlflowUnreachableError(
        f"MLflow at {shown or repr(shown)} cannot be used: {_hide_credentials(reason, uri)}; "
        "nothing is lost: the run records are on disk, and `leakpipe track` (or the next snakemake) adds them later"
    )


def _hide_credentials(text: str, uri: str) -> str:
    user, _, password = uri.partition("://")[2].rpartition("@")[0].partition(":")
    query = [pair.partition("=")[2] for pair in re.split(r"[?&]", uri)[1:]]
    variables = [os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in ("PASSWORD", "TOKEN")]
    text = re.sub(r"://\S*@", "://", text.replace(uri, without_credentials(uri)))
    for secret in [password, unquote(password), user, unquote(user), *query, *variables]:
        if len(secret) > 2:  # shorter ones would only garble the sentence
            text = text.replace(secret, "***")
    return text
