"""The cells of one job: starting Python and torch takes seconds, so a job takes several, and finishes each by itself.

Every cell has its own files and its own run record. What a job has finished is not computed again, whatever happens
to the job: a cell is skipped if its files are there, unchanged, and its record has the key of this very computation.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from leakpipe.cli.terminal import say
from leakpipe.errors import LeakpipeError

if TYPE_CHECKING:
    from leakpipe.cli.options import Command
    from leakpipe.records.run_record import RunRecord

NAMES = ("experiment", "defense", "seed", "round", "client", "attack")
KEPT = Path(".leakpipe/kept")  # links to the files of finished cells, until all cells of their job are finished
KEY = "key"  # of a record's details
Pattern = TypeVar("Pattern", str, Path)


def each_option(command: "Command") -> "Command":
    """Add `--each`, which makes one command work on several cells."""
    return click.option(
        "--each",
        multiple=True,
        metavar="KEY=VALUE[,…]",
        callback=_parse_each,
        help="Cell of the job: VALUE replaces {KEY} in all paths and is a label of the cell's run record; repeatable. "
        "A cell that is finished, from the same inputs, settings and code, is skipped.",
    )(command)


def _parse_each(_ctx: click.Context, _param: click.Parameter, values: Iterable[str]) -> list[dict[str, str]]:
    cells = []
    for value in values:
        pairs = [part.partition("=") for part in value.split(",")]
        if not all(key and separator for key, separator, _ in pairs):
            raise click.BadParameter(f"expected KEY=VALUE[,KEY=VALUE…], got {value!r}")
        cells.append({key: found for key, _, found in pairs})
    return cells


@dataclass(frozen=True)
class Cell:
    """One cell of a job.

    Attributes:
        each: What distinguishes it from the job's other cells; empty for a command without `--each`.
        labels: All that it is labelled with.
    """

    each: Mapping[str, str]
    labels: Mapping[str, str]

    def fill(self, pattern: Pattern) -> Pattern:
        """A path (or other text) of this cell: `{seed}` replaced by the cell's seed, and so on."""
        text = str(pattern)
        for name, value in self.each.items():
            text = text.replace(f"{{{name}}}", value)
        return type(pattern)(text)

    def command(self, arguments: Sequence[str]) -> list[str]:
        """The job's arguments, changed so that they are of this cell alone."""
        alone, waiting = [], list(arguments)
        while waiting:
            argument = waiting.pop(0)
            if argument == "--each":
                waiting.pop(0)
            elif not argument.startswith("--each="):
                alone.append(self.fill(argument))
        return [*alone, *(part for item in self.each.items() for part in ("--label", "=".join(item)))]

    def __str__(self) -> str:
        return " ".join(value if name in ("client", "attack", "defense") else f"{name}{value}"
                        for name, value in self.each.items())  # fmt: skip


class Cells:
    """The cells of a job that are not finished, to be iterated over once; and where what they leave is kept.

    Args:
        rule: The job's rule; its command is `leakpipe.cli.<rule>`.
        each: What `--each` gives.
        labels: What `--label` gives: the same for all cells.
        record: Pattern of the run records' paths.
        settings: All that the results depend on beside input files and code; JSON-serialisable.
        inputs: Patterns of the input files. A safetensors file counts with its sidecar, which has its SHA-256.
    """

    def __init__(
        self,
        rule: str,
        *,
        each: Sequence[Mapping[str, str]],
        labels: Mapping[str, str],
        record: Path | None,
        settings: Mapping[str, Any],
        inputs: Iterable[Path],
    ) -> None:
        self.rule, self.record, self.settings, self.inputs = rule, record, settings, list(inputs)
        self._digests: dict[Path, str] = {}
        cells = [Cell(found, _in_order({**labels, **found})) for found in each or [{}]]
        self.several = len(cells) > 1
        self.unfinished = [cell for cell in cells if not (each and self._is_finished(cell))]
        self._cells = cells
        self._failed = 0

    def __len__(self) -> int:
        return len(self.unfinished)

    def __iter__(self) -> Iterator[Cell]:
        """Every unfinished cell; in the end an error if any failed.

        Raises:
            LeakpipeError: Cells failed; the others are finished and kept.
        """
        yield from self.unfinished
        if self._failed:
            count = f"{self._failed} of {len(self._cells)} cells"
            raise LeakpipeError(f"{self.rule}: {count} failed, see above; the others are kept for the next call")
        for cell in self._cells:
            if self.record is not None:
                shutil.rmtree(self._kept(cell), ignore_errors=True)

    @contextmanager
    def recording(self, cell: Cell, params: Mapping[str, Any]) -> Iterator["RunRecord"]:
        """Write the cell's run record when the block succeeds, and keep its files.

        Where a job has several cells, a `LeakpipeError` is printed and the next cell is worked on: one that cannot be
        computed must not stop the others.
        """
        from leakpipe.records.command_line import ARGUMENTS
        from leakpipe.records.run_record import record_run

        meta = click.get_current_context().meta
        arguments = meta.get(ARGUMENTS)
        record = self.record and cell.fill(self.record)
        try:
            if arguments is not None:
                meta[ARGUMENTS] = cell.command(arguments)
            with record_run(record, rule=self.rule, labels=cell.labels, params=params) as run:
                if record:
                    run.details[KEY] = self._key(cell)
                yield run
            if record and self.several:
                self._keep(cell, record)
        except LeakpipeError as error:
            if not self.several:
                raise
            self._failed += 1
            say(f"Error: {error}", err=True)
        finally:
            if arguments is not None:
                meta[ARGUMENTS] = arguments

    def _is_finished(self, cell: Cell) -> bool:
        """Returns whether the cell's files are there and are what this job would make; kept ones are put back first."""
        if self.record is None:
            return False
        record, key, kept = cell.fill(self.record), self._key(cell), self._kept(cell)
        if _made(record, key) is not None:
            return True
        names = _made(kept / record, key, folder=kept)
        if names is None:
            return False
        for name in (*map(Path, names), record):
            _link(kept / name, name)
        return _made(record, key) is not None

    def _keep(self, cell: Cell, record: Path) -> None:
        """Link the finished cell's files into a folder that outlives a job that fails later."""
        kept = self._kept(cell)
        shutil.rmtree(kept, ignore_errors=True)
        names = [Path(name) for name in json.loads(record.read_text(encoding="utf-8"))["outputs"]]
        if not any(name.is_absolute() or not name.is_file() for name in (*names, record)):
            for name in (*names, record):
                _link(name, kept / name)

    def _kept(self, cell: Cell) -> Path:
        return KEPT / hashlib.sha256(str(cell.fill(self.record or Path())).encode()).hexdigest()[:16]

    def _key(self, cell: Cell) -> str:
        """Names the whole computation of a cell: inputs, settings, labels, code, and the packages that compute."""
        from leakpipe.records.code_version import code_version
        from leakpipe.records.run_record import package_versions

        versions = package_versions()
        content = [
            self.settings,
            cell.labels,
            [self._digest(cell.fill(path)) for path in self.inputs],
            code_version(f"leakpipe.cli.{self.rule}"),
            [versions.get(name) for name in ("torch", "numpy")],
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]

    def _digest(self, path: Path) -> str:
        from leakpipe.files.log import hash_file

        if path not in self._digests:
            self._digests[path] = hash_file(path.with_suffix(".json") if path.suffix == ".safetensors" else path)
        return self._digests[path]


def _in_order(labels: Mapping[str, str]) -> dict[str, str]:
    known = {name: labels[name] for name in NAMES if name in labels}
    return {**known, **labels}


def _made(record: Path, key: str, folder: Path = Path()) -> list[str] | None:
    """The outputs that a record of this key lists, None if there is no such record or one of them has changed."""
    from leakpipe.files.log import hash_file

    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        same = content["details"].get(KEY) == key
        outputs: dict[str, str] = content["outputs"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return list(outputs) if same and all(hash_file(folder / name) == sha for name, sha in outputs.items()) else None


def _link(source: Path, target: Path) -> None:
    """Make `target` the file that `source` is, by a link where the file system has them."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def require_cell(path: Path, cell: Mapping[str, Any], labels: Mapping[str, Any], *, needs: Iterable[str] = ()) -> None:
    """Check that what a file says it is of agrees with the job's labels, as far as both say it.

    Raises:
        LeakpipeError: It is of another experiment, defence, seed, round, client or attack, or lacks one of `needs`.
    """
    if missing := [name for name in needs if name not in cell]:
        raise LeakpipeError(f"{path}: cell: does not say of which {missing[0]} it is")
    for name in NAMES:
        if name in cell and name in labels and str(cell[name]) != str(labels[name]):
            raise LeakpipeError(f"{path}: is of {name} {cell[name]!r}, expected {str(labels[name])!r}")


def require_distinct(files: Iterable[tuple[Path, Mapping[str, Any]]]) -> None:
    """Check that no two files are of the same cell.

    Args:
        files: Path and cell of each.

    Raises:
        LeakpipeError: Two are, so that one stands where another should.
    """
    seen: dict[Hashable, Path] = {}
    for path, cell in files:
        first = seen.setdefault(tuple(cell.get(name) for name in NAMES), path)
        if first != path:
            raise LeakpipeError(f"{path}: is of the same cell as {first}; one of them stands in another's place")
