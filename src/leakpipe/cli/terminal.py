"""The output of a command while it runs: progress, and the words after an interruption. No result depends on it."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tqdm import tqdm

CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) != "\n"}


def progress_bar(total: int, description: str, unit: str) -> "tqdm[Any]":
    """A bar with rate and remaining time on a terminal; a line about every 30 s elsewhere (log files)."""
    from tqdm import tqdm

    on_terminal = sys.stderr.isatty()
    return tqdm(
        total=total,
        desc=description,
        unit=unit,
        dynamic_ncols=on_terminal,
        mininterval=0.2 if on_terminal else 30,
        ascii=not on_terminal,
    )


def visible(text: str) -> str:
    """Returns text with escapes in place of control characters, which a terminal would obey, and of broken Unicode."""
    return text.translate(CONTROLS).encode("utf-8", "backslashreplace").decode()


def say(text: str, *, err: bool = False) -> None:
    """Prints a sentence that quotes files or names of others."""
    click.echo(visible(text), err=err)


@contextmanager
def stop_cleanly() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C (Snakemake sends it to its jobs), and say in one sentence what is kept.

    The command ends with 130, as shells report an interrupted program.
    """

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        click.echo("Interrupted: the same command continues from the last checkpoint, if there is one.", err=True)
        raise SystemExit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)
