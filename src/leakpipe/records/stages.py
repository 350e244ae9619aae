"""Lets DVC version Snakemake's outputs: the evidence of how every file was made travels with the files.

Snakemake remakes a file when the code, parameters or inputs that it was made from differ from those in its record
under `.snakemake/metadata`; it trusts a file without a record. DVC carries files to other machines and back in time,
but not these records, so old files would pass for new ones. Therefore each DVC stage has an additional output, its
provenance file: the records of all its files, with the SHA-256 of each file. `restore` puts back the records whose
file is the one they describe, and deletes every file without such a record, so that Snakemake makes it again.
`export` writes the provenance file.
"""

import json
import math
import os
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leakpipe.errors import LeakpipeError
from leakpipe.files.log import hash_file
from leakpipe.files.storage import read_json, require_number, require_object, write_json
from leakpipe.params.reading import read_yaml
from leakpipe.records.run_record import RECORDS

PROVENANCE_KIND = "leakpipe/provenance"
PROVENANCE_VERSION = 1
SNAKEMAKE = Path(".snakemake")
METADATA = SNAKEMAKE / "metadata"
OF_ONE_FILE = ("starttime", "endtime")  # what differs between the records of one job's files

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml.

    Attributes:
        name: Its name, also the name of its target rule in the Snakefile.
        outs: Files and folders that hold all its outputs, without the provenance file.
        provenance: Its provenance file.
    """

    name: str
    outs: tuple[Path, ...]
    provenance: Path

    def holds(self, path: str) -> bool:
        """Returns whether a file belongs to this stage."""
        return any(Path(path).is_relative_to(out) for out in self.outs)

    def files(self) -> Iterator[str]:
        """Yields every file in the stage's outs, sorted; links to folders are not followed."""
        for out in self.outs:
            if out.is_file() or out.is_symlink():
                yield str(out)
            for folder, subfolders, names in os.walk(out):
                subfolders.sort()
                links = [name for name in subfolders if Path(folder, name).is_symlink()]
                yield from (str(Path(folder, name)) for name in sorted(names + links))


@dataclass(frozen=True)
class Made:
    """A file as its job left it: SHA-256 of the content, times in seconds since 1970."""

    sha256: str
    starttime: float
    endtime: float


@dataclass(frozen=True)
class Job:
    """A job that Snakemake ran: the common part of the records of its files, and the files."""

    record: Record
    outputs: Mapping[str, Made]

    def records(self) -> dict[str, Record]:
        """Returns Snakemake's record of every file."""
        return {
            path: {**self.record, "starttime": made.starttime, "endtime": made.endtime}
            for path, made in self.outputs.items()
        }

    def left(self, hashes: Mapping[str, str]) -> bool:
        """Returns whether all files are still as the job left them."""
        return all(hashes.get(path) == made.sha256 for path, made in self.outputs.items())

    def ran_again(self, hashes: Mapping[str, str]) -> bool:
        """Returns whether the job has run again since: every run writes another run record."""
        run_records = [path for path in self.outputs if RECORDS in Path(path).parts]
        return not run_records or any(hashes.get(path, sha) != sha for path, sha in self._hashes(run_records))

    def _hashes(self, paths: Iterable[str]) -> Iterator[tuple[str, str]]:
        return ((path, self.outputs[path].sha256) for path in paths)


def read_stages(pipeline: Path, *, upto: str, experiment: str) -> list[Stage]:
    """Returns the stages of dvc.yaml up to and including one, in the order of the file, which is that of the data.

    Args:
        pipeline: dvc.yaml.
        upto: Name of the last stage wanted.
        experiment: Replaces `${experiment}` in paths, as DVC does.

    Raises:
        LeakpipeError: There is no such stage, it has no provenance file, or an out is not inside the project.
    """
    stages = read_yaml(pipeline).get("stages", {})
    if upto not in stages:
        raise LeakpipeError(f"{pipeline}: stages: no stage {upto!r}; known: {', '.join(stages)}")
    names = list(stages)[: list(stages).index(upto) + 1]
    return [_read_stage(pipeline, name, stages[name], experiment) for name in names]


def _read_stage(pipeline: Path, name: str, content: Mapping[str, Any], experiment: str) -> Stage:
    entries = [entry for kind in ("outs", "metrics", "plots") for entry in content.get(kind, ())]
    paths = [Path(os.path.normpath(str(_path(entry)).replace("${experiment}", experiment))) for entry in entries]
    for path in paths:
        if path.is_absolute() or len(path.parts) < 2 or ".." in path.parts:
            raise LeakpipeError(f"{pipeline}: stages.{name}.outs: {path}: expected a path in a folder of the project")
    provenance = [path for path in paths if path.parts[-2:] == ("provenance", f"{name}.json")]
    if len(provenance) != 1:
        raise LeakpipeError(f"{pipeline}: stages.{name}.outs: expected one out that ends in provenance/{name}.json")
    return Stage(name, tuple(path for path in paths if path not in provenance), provenance[0])


def _path(entry: str | Mapping[str, Any]) -> str:
    return entry if isinstance(entry, str) else next(iter(entry))


def restore(stages: Sequence[Stage]) -> list[str]:
    """Puts back the records that can be trusted, deletes every file that has none, and returns those deleted."""
    jobs = [job for stage in stages for job in read_provenance(stage.provenance)]
    hashes = {path: hash_file(path) for stage in stages for path in stage.files()}
    trusted = trusted_records(jobs, hashes, {path: record for path in hashes if (record := own_record(path))})
    for path, record in trusted.items():
        if read_metadata(path) != record:
            write_metadata(path, record)
    distrusted = sorted(hashes.keys() - trusted.keys())
    delete_files(distrusted)
    return distrusted


def trusted_records(jobs: Iterable[Job], hashes: Mapping[str, str], own: Mapping[str, Record]) -> dict[str, Record]:
    """Returns the record of every file whose record describes how its present content was made.

    Args:
        jobs: Content of the provenance files.
        hashes: SHA-256 of every existing file.
        own: The records that Snakemake itself wrote here, for files not modified since.

    Returns:
        Records by path. Where all files of a job in the provenance files are unchanged, that job's record is trusted,
        whatever Snakemake has recorded since (`snakemake --touch` records old files as if they were new). If some
        changed though the job did not run again, none of its files is trusted. All other files are trusted by
        Snakemake's own records. A file made from inputs that have changed since is never trusted.
    """
    records = dict(own)
    for job in jobs:
        if job.left(hashes):
            records |= job.records()
        elif not job.ran_again(hashes):
            records = {path: record for path, record in records.items() if path not in job.outputs}
    return {path: record for path, record in records.items() if not _has_other_inputs(record, hashes)}


def _has_other_inputs(record: Record, hashes: Mapping[str, str]) -> bool:
    checksums: Mapping[str, str] = record.get("input_checksums") or {}
    present = {path: checksum for path, checksum in checksums.items() if path in hashes}
    return any(checksum != f"sha256:{hashes[path]}" for path, checksum in present.items())


def prune(stages: Iterable[Stage], expected: set[str]) -> list[str]:
    """Deletes files in the stages' outs that no rule makes, and empty folders there; returns the files."""
    stale = sorted(path for stage in stages for path in stage.files() if path not in expected)
    delete_files(stale)
    for stage in stages:
        for out in stage.outs:
            for folder, _, _ in os.walk(out, topdown=False):
                if not any(Path(folder).iterdir()):
                    Path(folder).rmdir()
    return stale


def export(stage: Stage) -> None:
    """Writes the stage's provenance file, unless its content would stay the same.

    Raises:
        LeakpipeError: Snakemake has no record of a file.
    """
    records: dict[str, Record] = {}
    for path in stage.files():
        records[path] = read_metadata(path)
        if not records[path]:
            raise LeakpipeError(f"{path}: Snakemake has no record of how it was made; delete it and run again")
    jobs = group_by_job(records, {path: hash_file(path) for path in records})
    if jobs != read_provenance(stage.provenance):
        write_provenance(stage.provenance, jobs)


def group_by_job(records: Mapping[str, Record], hashes: Mapping[str, str]) -> list[Job]:
    """Groups files by job: the records of one job's files differ in nothing but times. Sorted by path."""
    common: dict[str, Record] = {}
    outputs: dict[str, dict[str, Made]] = {}
    for path, record in sorted(records.items()):
        shared = {key: value for key, value in sorted(record.items()) if key not in OF_ONE_FILE}
        key = json.dumps(shared)
        common[key] = shared
        outputs.setdefault(key, {})[path] = Made(hashes[path], record["starttime"], record["endtime"])
    return [Job(common[key], made) for key, made in outputs.items()]


def read_provenance(path: Path) -> list[Job]:
    """Reads a provenance file; a missing one counts as empty."""
    if not path.exists():
        return []
    content = read_json(path)
    if content.get("kind") != PROVENANCE_KIND or content.get("version") != PROVENANCE_VERSION:
        found = f"{content.get('kind')!r} version {content.get('version')!r}"
        raise LeakpipeError(f"{path}: kind: {found}, expected {PROVENANCE_KIND!r} version {PROVENANCE_VERSION}")
    try:
        return [_read_job(job) for job in content["jobs"]]
    except (KeyError, TypeError) as error:
        raise LeakpipeError(f"{path}: jobs: expected jobs with a record and outputs each ({error})") from error


def _read_job(job: Mapping[str, Any]) -> Job:
    record, outputs = require_object(job["record"]), require_object(job["outputs"])
    require_object(record.get("input_checksums") or {})
    made = {name: require_object(each) for name, each in outputs.items()}
    return Job(
        record,
        {
            name: Made(str(each["sha256"]), require_number(each["starttime"]), require_number(each["endtime"]))
            for name, each in made.items()
        },
    )


def write_provenance(path: Path, jobs: Sequence[Job]) -> None:
    """Writes a provenance file."""
    content = [
        {"record": job.record, "outputs": {name: vars(made) for name, made in job.outputs.items()}} for job in jobs
    ]
    write_json(path, {"kind": PROVENANCE_KIND, "version": PROVENANCE_VERSION, "jobs": content})


def own_record(path: str) -> Record:
    """Returns Snakemake's record of a file if the file's time is the one recorded (else it came otherwise), or {}."""
    record = read_metadata(path)
    made = record.get("endtime")
    untouched = made is not None and math.isclose(Path(path).lstat().st_mtime, made, rel_tol=0, abs_tol=1e-3)
    return record if untouched else {}


def read_metadata(path: str) -> Record:
    """Returns Snakemake's record of a file; {} if none can be read."""
    try:
        record = json.loads(metadata_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def write_metadata(path: str, record: Record) -> None:
    """Writes a file's record to where Snakemake reads it."""
    write_json(metadata_path(path), record)


def metadata_path(path: str) -> Path:
    """Returns where Snakemake keeps the record of a file: its path in base64, split where names get too long.

    The place has been the same since Snakemake 5, and a test compares it with that of the installed version;
    Snakemake's own classes for it changed module and name within version 9.
    """
    name = urlsafe_b64encode(path.encode()).decode()
    existing = next(folder for folder in (METADATA, *METADATA.parents) if folder.exists())
    length = (os.pathconf(existing, "PC_NAME_MAX") or 255) - 1
    parts = [name[start : start + length] for start in range(0, len(name), length)]
    return METADATA.joinpath(*(f"@{part}" for part in parts[:-1]), parts[-1])


def delete_files(paths: Iterable[str]) -> None:
    """Deletes files and Snakemake's records of them."""
    for path in paths:
        Path(path).unlink(missing_ok=True)
        metadata_path(path).unlink(missing_ok=True)
