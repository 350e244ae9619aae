"""Reads run records, which may come from others or be damaged: all that later stages use of them is checked here."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, ValidationError

from leakpipe.errors import LeakpipeError
from leakpipe.files.storage import read_json
from leakpipe.records.run_record import RECORD_KIND

MOST = 2**53  # larger whole numbers are no 64-bit floats, and soon no integers of a database
LONGEST_NAME = 255  # bytes of a file's name, on all common file systems


def _file_name(name: str) -> str:
    """Refuses names that make the operating system raise more than "not found"."""
    if "\0" in name or any(len(part.encode()) > LONGEST_NAME for part in Path(name).parts):
        raise ValueError("no file can have this name")
    return name


def _time(text: str) -> str:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None or not 1971 <= moment.year < 2200:
        raise ValueError("expected an ISO time with its zone, from 1971")
    return text


FileName = Annotated[str, AfterValidator(_file_name), Field(min_length=1, max_length=4000)]
Number = Annotated[float, Strict(), Field(ge=-1e300, le=1e300)]
Step = Annotated[int, Strict(), Field(ge=-MOST, le=MOST)]
Amount = Annotated[float, Strict(), Field(ge=0, le=MOST)]
Word = Annotated[str, Field(max_length=1000)]


class _Environment(BaseModel):
    model_config = ConfigDict(strict=True)
    started: Annotated[str, AfterValidator(_time)]
    seconds: Annotated[float, Strict(), Field(ge=0, le=1e9)]
    peak_memory_mib: Amount
    commit: Word | None
    uncommitted_changes: bool | None
    module: Word
    code_version: Word
    versions: dict[str, Word]
    processor: Word
    cores: int | None
    system: Word
    python: Word


class _Attack(BaseModel):
    model_config = ConfigDict(strict=True)
    cell: dict[str, str | int]
    seconds: Amount
    explained: Number | None
    notes: list[str]


class _Details(BaseModel):
    model_config = ConfigDict(strict=True)
    attacks: list[_Attack] = []


class _Record(BaseModel):
    """The fields that `record_run` writes."""

    model_config = ConfigDict(strict=True)
    id: Word
    rule: Annotated[str, Field(pattern=r"^[a-z_]+$", max_length=100)]
    labels: dict[str, str | int]
    params: dict[str, Any]
    params_hash: Word
    command: list[str] | None
    curves: dict[str, list[Annotated[tuple[Step, Number], Strict(False)]]]
    metrics: dict[str, Number]
    artifacts: list[FileName]
    details: _Details
    inputs: dict[FileName, str]
    outputs: dict[FileName, str]
    environment: _Environment


def read_record(path: Path) -> dict[str, Any]:
    """Reads a run record; raises `LeakpipeError` if the file is something else, or a field is missing or invalid."""
    record = read_json(path)
    if record.get("kind") != RECORD_KIND:
        raise LeakpipeError(f"{path}: kind: {record.get('kind')!r}, expected {RECORD_KIND!r}")
    try:
        _Record.model_validate(record)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        said = problem["msg"].removeprefix("Value error, ")
        value = "missing" if problem["type"] == "missing" else f"{str(problem['input'])[:40]!r}: {said}"
        raise LeakpipeError(
            f"{path}: {'.'.join(map(str, problem['loc']))}: {value}; the record is damaged or of another version of "
            "leakpipe: run its job again"
        ) from error
    return record
