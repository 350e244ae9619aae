"""The common parts of all figures: colours, fonts, panels, drawings, and saving them so that their bytes repeat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:  # the Snakefile imports this module on every start
    from pathlib import Path

    import numpy as np
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

# Okabe and Ito's colours for colour-blind readers, the strongest first; markers tell them apart in gray print.
COLORS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
INK, MUTED, FAINT, GRID = "#1a1a1a", "#666666", "#cccccc", "#eeeeee"
PNG_DOTS_PER_INCH = 200
DrawFunction = TypeVar("DrawFunction", bound=Callable[..., "Drawing"])


@cache
def _style() -> dict[Any, Any]:
    """Settings on top of matplotlib's own defaults: a reader's matplotlibrc must not change the bytes."""
    import matplotlib

    return {
        **{name: value for name, value in matplotlib.rcParamsDefault.items() if not name.startswith("backend")},
        "font.family": "DejaVu Sans",  # ships with matplotlib, so text is the same everywhere
        "font.size": 10,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "text.color": INK,
        "text.parse_math": False,  # a dollar sign in a user's title is one
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "lines.linewidth": 2.0,
        "lines.markersize": 6.5,
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
        "svg.fonttype": "path",
        "svg.hashsalt": "leakpipe",
    }


def in_style(draw: DrawFunction) -> DrawFunction:
    """Wrap a function that draws: matplotlib reads its settings when a thing is made, not when it is saved."""

    @wraps(draw)
    def styled(*args: Any, **settings: Any) -> Drawing:
        import matplotlib

        with matplotlib.rc_context(_style()):
            return draw(*args, **settings)

    return styled  # type: ignore[return-value]


@dataclass(frozen=True)
class Drawing:
    """A figure, and its caption: what is shown, of how many, and what the intervals are."""

    figure: Figure
    caption: str

    def save(self, *, svg: Path, png: Path, caption: Path) -> None:
        """Save as SVG, PNG and plain text, each whole or not at all; the same bytes for the same drawing."""
        import matplotlib

        from leakpipe.files.storage import write_atomically, write_text

        with matplotlib.rc_context(_style()):
            with write_atomically(svg) as stream:
                self.figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
            with write_atomically(png) as stream:
                self.figure.savefig(stream, format="png", dpi=PNG_DOTS_PER_INCH, metadata={"Software": None})
        write_text(caption, self.caption + "\n")


def make_panels(
    width: float, height: float, rows: int = 1, columns: int = 1, **shared: Any
) -> tuple[Figure, np.ndarray]:
    """A figure of `width` × `height` inches and its axes, shape (rows, columns); `shared` is for `subplots`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def add_title(figure: Figure, text: str) -> None:
    """Write the title of a figure of several panels."""
    figure.suptitle(text, weight="bold", fontsize=11, x=0.01, ha="left")


def add_legend(figure: Figure, handles: Sequence[Artist], columns: int = 1, loc: str = "outside lower center") -> None:
    """Put a legend beside the panels."""
    look: dict[str, Any] = {"loc": loc, "ncols": columns, "frameon": False, "fontsize": 9}
    figure.legend(handles=list(handles), **look)


def make_key(label: str, color: str, *, marker: str = "", hollow: bool = False, **look: Any) -> Line2D:
    """An entry of a legend: a line, or a marker alone where one is given."""
    from matplotlib.lines import Line2D

    if marker:
        look = {"marker": marker, "markerfacecolor": "white" if hollow else color, "linestyle": "none", **look}
    return Line2D([], [], color=color, label=label, **look)


def mark_percent(axes: Axes) -> None:
    """Label a vertical axis of shares in quarters."""
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
