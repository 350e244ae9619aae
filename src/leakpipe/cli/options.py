"""The common parts of commands: option types, options of the run record, threads."""

import gc
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from leakpipe.errors import LeakpipeError

if TYPE_CHECKING:
    import torch

Command = TypeVar("Command", bound=Callable[..., Any])

DEVICES = ("auto", "cpu", "cuda", "mps")
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
        "--label", "labels", multiple=True, metavar="KEY=VALUE", callback=parse_pairs, help="Label of the run record."
    )(command)


def parse_pairs(_ctx: click.Context, _param: click.Parameter, values: Iterable[str]) -> dict[str, str]:
    """Turns the values of a repeatable option, KEY=VALUE, into a mapping."""
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


def device_option(command: Command) -> Command:
    """Add `--device`: where tensors are. Like the number of threads, it may change last digits, and is recorded."""
    return click.option(
        "--device",
        type=click.Choice(DEVICES),
        default="cpu",
        show_default=True,
        help="Where to compute; auto is cuda where torch sees one, else cpu.",
    )(command)


def use_device(name: str) -> "torch.device":
    """Returns the device of a name after making torch's kernels there as exact and repeatable as they can be.

    On CUDA: no TF32, no search for the fastest convolution, deterministic algorithms (a warning where there is none).
    The CPU's kernels are deterministic as they are (`use_threads`).

    Raises:
        LeakpipeError: torch does not see the device, or cannot compute with it in float64.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "mps":
        raise LeakpipeError(
            "--device: mps, expected cpu, cuda or auto: it has no float64, in which distances of updates are summed"
        )
    if name == "cuda":
        if not torch.cuda.is_available():
            raise LeakpipeError("--device: cuda, but torch sees none; install torch for CUDA, or use --device cpu")
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS needs it to be deterministic
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)
    return torch.device(name)


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
