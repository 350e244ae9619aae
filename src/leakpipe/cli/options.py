"""What commands share: option types, options of the run record, threads."""

import gc
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

InputFile = click.Path(path_type=Path, dir_okay=False)
OutputFile = click.Path(path_type=Path, dir_okay=False)


class JsonOrFile(click.ParamType[Any]):
    """JSON text, or the path of a YAML or JSON file."""

    name = "json|file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Decode; text that starts with { or [ is JSON, everything else is a path."""
        if not isinstance(value, str):
            return value
        if not value.lstrip().startswith(("{", "[")):
            path = Path(value)
            if path.suffix == ".json":  # not all of its escapes are YAML's
                from leakpipe.files.storage import read_json

                return read_json(path)
            from leakpipe.params.reading import read_yaml

            return read_yaml(path)
        try:
            return json.loads(value)
        except ValueError as error:
            self.fail(f"not JSON: {error}", param, ctx)


def settings_option(name: str, help_text: str) -> Callable[[Command], Command]:
    """A required option that takes a section of the parameters."""
    return click.option(f"--{name}", type=JsonOrFile(), required=True, help=f"{help_text} (JSON, or a YAML file).")


def record_options(command: Command) -> Command:
    """Add `--record` and `--label`: where the run record goes, and what the job is for."""
    command = record_labels(command)
    return click.option("--record", type=OutputFile, help="Write the run record (JSON) here.")(command)


def record_labels(command: Command) -> Command:
    """Add `--label`: what the job is for."""
    return click.option(
        "--label", "labels", multiple=True, metavar="KEY=VALUE", callback=_parse_labels, help="Label of the run record."
    )(command)


def _parse_labels(_ctx: click.Context, _param: click.Parameter, values: Iterable[str]) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    for key, separator, _ in pairs:
        if not (key and separator):
            raise click.BadParameter(f"expected KEY=VALUE, got {key!r}")
    return {key: value for key, _, value in pairs}


def threads_option(command: Command) -> Command:
    """Add `--threads`: torch's threads. Results may differ in the last digit between thread counts."""
    return click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="torch's threads.")(
        command
    )


def use_threads(threads: int) -> None:
    """Set torch's threads.

    `torch.use_deterministic_algorithms` is left alone: on the CPU the kernels used here are deterministic
    (a test compares bytes), and the call imports torch's compiler, which takes longer than an attack.

    torch is imported here, and the garbage collector never looks at what that makes: it would go through it again and
    again, for a tenth of the time that the import takes.
    """
    gc.disable()
    import torch

    gc.freeze()
    gc.enable()
    torch.set_num_threads(threads)
