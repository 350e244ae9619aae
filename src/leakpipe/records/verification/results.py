"""An experiment's results as their own files describe them: parameters, run records, crate, SHA-256 of every file.

Files go by the names that run records give them (`results/<experiment>/…`), wherever the folder is now.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from leakpipe.errors import LeakpipeError
from leakpipe.experiment import parse_params
from leakpipe.files.log import hash_file
from leakpipe.files.storage import read_json
from leakpipe.params.experiment import Params
from leakpipe.records.crate import CRATE
from leakpipe.records.run_record import read_record

RECORDS, PARAMS = "records", "params.json"

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Sealed:
    """A file as the crate lists it."""

    sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Results:
    """What a results folder says of itself.

    Attributes:
        folder: Where it is.
        root: What records call it: results/<experiment>.
        params: The parameters that it was made with.
        records: Run records of all jobs, by name.
        sealed: What its crate lists, by name; empty if it has none that can be read.
        unreadable: A sentence about each record or crate that cannot be read, by name.
    """

    folder: Path
    root: Path
    params: Params
    records: Mapping[str, Record]
    sealed: Mapping[str, Sealed]
    unreadable: Mapping[str, str]

    def place(self, name: str) -> Path:
        """Where the file is that records call `name`."""
        return self.folder / Path(name).relative_to(self.root) if Path(name).is_relative_to(self.root) else Path(name)

    def config_files(self) -> list[Path]:
        """The files of parameters that the report's record lists, overlays last; [] unless all of them are here.

        Snakemake lists what `--configfile` named, then the Snakefile's own file, which the others are laid over.
        """
        reports = (record for record in self.records.values() if record["rule"] == "report")
        listed = [Path(name) for record in reports for name in record["params"].get("config_files", ())]
        return list(dict.fromkeys([*listed[-1:], *listed])) if all(path.is_file() for path in listed) else []

    def files(self) -> list[str]:
        """Names of all files in the folder and of those outside that a job read, sorted; some may be missing."""
        inside = [path.relative_to(self.folder) for path in self.folder.rglob("*") if path.is_file()]
        read = {name for record in self.records.values() for name in record["inputs"]}
        outside = {name for name in read if not Path(name).is_relative_to(self.root) and Path(name).is_file()}
        return sorted({*(str(self.root / path) for path in inside), *outside})

    def hash_files(self, on_file: Callable[[], object]) -> dict[str, str]:
        """SHA-256 of `files`, by name; calls `on_file` after each."""

        def hashed(name: str) -> str:
            digest = hash_file(self.place(name))
            on_file()
            return digest

        return {name: hashed(name) for name in self.files()}


def read_results(folder: Path) -> Results:
    """Read what describes an experiment's results.

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
            records[name] = _read_whole_record(path)
        except LeakpipeError as error:
            unreadable[name] = str(error)
    try:
        sealed = dict(_read_crate(folder / CRATE, root))
    except LeakpipeError as error:
        sealed, unreadable[str(root / CRATE)] = {}, str(error)
    return Results(folder=folder, root=root, params=params, records=records, sealed=sealed, unreadable=unreadable)


def _read_whole_record(path: Path) -> Record:
    record = read_record(path)
    for field in ("rule", "labels", "params", "params_hash", "inputs", "outputs", "environment"):
        if field not in record:
            raise LeakpipeError(f"{path}: {field}: missing; the record is of an older leakpipe, run its job again")
    return record


def _read_crate(path: Path, root: Path) -> Iterator[tuple[str, Sealed]]:
    try:
        for entity in read_json(path)["@graph"]:
            if entity["@type"] == "File":
                name = os.path.normpath(root / unquote(entity["@id"]))
                yield name, Sealed(entity["sha256"], int(entity["contentSize"]))
    except (KeyError, TypeError, ValueError) as error:
        raise LeakpipeError(f"{path}: is not a crate that leakpipe wrote ({error!r})") from error
