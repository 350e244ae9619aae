"""What the `plot` commands share: they read a table, draw, save the figure, write the run record."""

from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from leakpipe.cli.options import InputFile, OutputFile, record_options, settings_option

if TYPE_CHECKING:
    from leakpipe.figures.style import Drawing


def figure_command(name: str) -> Callable[[Callable[..., "Drawing"]], click.Command]:
    """Make `leakpipe plot NAME` of a function that returns what is drawn.

    The function gets `clients` (that section of the parameters) and the values of the options that it has of its own,
    by keyword.
    """

    def decorate(draw: Callable[..., "Drawing"]) -> click.Command:
        @click.command(name)
        @settings_option("clients", "The `federation.clients` section")
        @click.option("--svg", type=OutputFile, required=True, help="Where the figure goes as SVG.")
        @click.option("--png", type=OutputFile, required=True, help="Where the figure goes as PNG.")
        @click.option("--caption", type=OutputFile, required=True, help="Where the caption (plain text) goes.")
        @record_options
        @wraps(draw)
        def command(
            *,
            svg: Path,
            png: Path,
            caption: Path,
            record: Path | None,
            labels: Mapping[str, Any],
            **settings: Any,
        ) -> None:
            from leakpipe.records.run_record import record_run

            params, module = _plain(settings), draw.__module__
            with record_run(record, rule="plot", labels=labels, params=params, module=module) as run:
                drawing = draw(**settings)
                drawing.save(svg=svg, png=png, caption=caption)
                run.artifacts += [str(svg), str(png)]

        return command

    return decorate


def reads_leakage(draw: Callable[..., "Drawing"]) -> Callable[..., "Drawing"]:
    """Add `--leakage`; the function gets the table as its first argument."""

    @click.option("--leakage", type=InputFile, required=True, help="The leakage table (collect's output).")
    @wraps(draw)
    def with_table(*, leakage: Path, **settings: Any) -> "Drawing":
        from leakpipe.tables.table import LEAKAGE_COLUMNS, read_table

        return draw(read_table(leakage, LEAKAGE_COLUMNS), **settings)

    return with_table


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Names and numbers, and lists of them: neither files nor sections of the parameters."""
    return {
        name: value
        for name, value in settings.items()
        if all(isinstance(part, str | int) for part in (value if isinstance(value, tuple) else [value]))
    }
