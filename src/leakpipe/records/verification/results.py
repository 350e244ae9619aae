"""The results of an experiment as its own files describe them: parameters, run records, crate, SHA-256 of every file.

Files have the names that run records give them (`results/<experiment>/…`), wherever the folder is now.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leakpipe.errors import LeakpipeError
from leakpipe.experiment.reading import parse_params
from leakpipe.files.log import hash_file
from leakpipe.files.storage import read_json
from leakpipe.params.experiment import Params
from leakpipe.records.crate import CRATE, read_crate
from leakpipe.records.reading import read_record
from leakpipe.records.run_record import RECORDS

PARAMS = "params.json"

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Sealed:
    """A file as the crate lists it."""

    sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Results:
    """Results, and what their folder says about them.

    Attributes:
        folder: Where it is.
        root: Its name in records: results/<experiment>.
        params: The parameters of the experiment.
        records: Run records of all jobs, by name.
        sealed: Files that its crate lists, by name; empty if it has no readable crate.
        unreadable: A sentence about each record or crate that cannot be read, by name.
    """

    folder: Path
    root: Path
    params: Params
    records: Mapping[str, Record]
    sealed: Mapping[str, Sealed]
    unreadable: Mapping[str, str]

    def place(self, name: str) -> Path:
        """Returns the path of the file that records call `name`."""
        return self.folder / Path(name).relative_to(self.root) if Path(name).is_relative_to(self.root) else Path(name)

    def config_files(self) -> list[Path]:
        """Returns the parameter files that the report's record lists, overlays last; [] unless all of them exist."""
        reports = (record for record in self.records.values() if record["rule"] == "report")
        named = [record["params"].get("config_files") for record in reports]
        listed = [Path(str(name)) for names in named if isinstance(names, list) for name in names]
        try:
            return listed if all(path.is_file() for path in listed) else []
        except OSError:  # of a name that no file can have
            return []

    def files(self) -> list[str]:
        """Returns the names of all files in the folder, and of existing files outside that a job read, sorted."""
        inside = [path.relative_to(self.folder) for path in self.folder.rglob("*") if path.is_file()]
        read = {name for record in self.records.values() for name in record["inputs"]}
        outside = {name for name in read if not Path(name).is_relative_to(self.root) and Path(name).is_file()}
        return sorted({*(str(self.root / path) for path in inside), *outside})

    def hash_files(self, on_file: Callable[[], object]) -> dict[str, str]:
        """Returns the SHA-256 of `files`, by name; calls `on_file` after each."""

        def hashed(name: str) -> str:
            digest = hash_file(self.place(name))
            on_file()
            return digest

        return {name: hashed(name) for name in self.files()}


def read_results(folder: Path) -> Results:
    """Reads what a folder of results says about itself.

    Raises:
        LeakpipeError: The folder has no params.json, or it cannot be used.
    """
    source = folder / PARAMS
    params = parse_params(read_json(source), source=str(source))
    root = Path("results", params.experiment)
    unreadable: dict[str, str] = {}
    records: dict[str, Record] = {}
    for path in sorted((folder / RECORDS).rglob("*.json")):
        name = str(root / path.relative_to(folder))
        try:
            records[name] = read_record(path)
        except LeakpipeError as error:
            unreadable[name] = str(error)
    crate, sealed = folder / CRATE, {}
    try:
        sealed = {name: Sealed(sha256, size) for name, sha256, size in read_crate(read_json(crate), root)}
    except LeakpipeError as error:
        unreadable[str(root / CRATE)] = str(error)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        unreadable[str(root / CRATE)] = f"{crate}: is not a crate that leakpipe wrote ({error!r})"
    return Results(folder=folder, root=root, params=params, records=records, sealed=sealed, unreadable=unreadable)
