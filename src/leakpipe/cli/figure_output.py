"""What the `plot` commands share: the options for their outputs, and saving."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from leakpipe.cli.options import OutputFile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from leakpipe.provenance import RunRecord


@dataclass(frozen=True)
class FigureOutput:
    """Where a figure and its caption go."""

    svg: Path
    png: Path
    caption: Path

    def save(self, figure: "Figure", caption: str, run: "RunRecord") -> None:
        """Write figure and caption and note them in the run record."""
        from leakpipe.figures.style import save_figure
        from leakpipe.storage import write_text

        save_figure(figure, svg=self.svg, png=self.png)
        write_text(self.caption, caption + "\n")
        run.artifacts += [str(self.svg), str(self.png)]


def figure_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--svg`, `--png` and `--caption`; the command gets them as one argument, `output`."""

    @wraps(command)
    def with_output(*, svg: Path, png: Path, caption: Path, **arguments: Any) -> Any:
        return command(output=FigureOutput(svg, png, caption), **arguments)

    for name, kind in (("caption", "caption (plain text)"), ("png", "PNG"), ("svg", "SVG")):
        with_output = click.option(f"--{name}", type=OutputFile, required=True, help=f"Where the {kind} goes.")(
            with_output
        )
    return with_output
