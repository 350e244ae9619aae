"""Downloads data sets through their publishers' own clients, with the user's own credentials."""

import contextlib
import io
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from leakpipe.data import covid_radiography
from leakpipe.data.medmnist_sets import describe_subset, file_name
from leakpipe.errors import LeakpipeError


def fetch_covid_radiography(into: Path) -> Path:
    """Downloads and unpacks the COVID-19 Radiography Database (0.8 GB) with Kaggle's client.

    Returns:
        Its folder, in `into`.

    Raises:
        LeakpipeError: Kaggle's client or its credentials are missing, or it fails.
    """
    api = _authenticate()
    into.mkdir(parents=True, exist_ok=True)
    with _failing_as("Kaggle's client could not download the data set"):
        api.dataset_download_files(covid_radiography.KAGGLE, path=str(into), quiet=False, unzip=True)
    folder = into / covid_radiography.FOLDER
    if not folder.is_dir():
        raise LeakpipeError(f"{folder}: is missing from what Kaggle's client unpacked to {into}")
    return folder


def _authenticate() -> Any:
    """Returns Kaggle's client with the user's credentials; it reports missing ones by SystemExit or on import."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            api = import_module("kaggle.api.kaggle_api_extended").KaggleApi()
            api.authenticate()
    except ImportError as error:
        raise LeakpipeError("fetch: needs Kaggle's client: pip install 'leakpipe[kaggle]'") from error
    except (SystemExit, OSError, ValueError) as error:
        raise LeakpipeError(
            "fetch: Kaggle's client found no credentials; create a token on https://www.kaggle.com/settings and save "
            "it as ~/.kaggle/kaggle.json"
        ) from error
    return api


def fetch_medmnist(subset: str, into: Path, *, size: int) -> Path:
    """Downloads one set of MedMNIST with its package, which checks the MD5.

    Returns:
        The file, in `into`.

    Raises:
        LeakpipeError: The package is missing, leakpipe cannot read the set, or the download fails.
    """
    about = describe_subset(subset)
    into.mkdir(parents=True, exist_ok=True)
    with _failing_as("package medmnist could not download the set"):
        load = getattr(import_module("medmnist"), about["python_class"])
        load(split="val", download=True, root=str(into), size=size)
    return into / file_name(subset, size)


@contextlib.contextmanager
def _failing_as(what: str) -> Iterator[None]:
    try:
        yield
    except (Exception, SystemExit) as error:  # clients raise types of their own
        raise LeakpipeError(f"fetch: {what}: {' '.join(str(error).split())}") from error
