"""What all figures share: colours, fonts, what a drawing is, and how it is saved so that its bytes repeat."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from leakpipe.files.storage import write_atomically, write_text

# Okabe and Ito's colours for colour-blind readers, the strongest first; markers tell them apart in gray print.
COLORS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
INK, MUTED, FAINT = "#1a1a1a", "#666666", "#cccccc"

# On top of matplotlib's own defaults: a reader's matplotlibrc must not change the bytes.
STYLE: dict[Any, Any] = {
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
PNG_DOTS_PER_INCH = 200

# Decorates the functions that draw: matplotlib reads its settings when a thing is made, not when it is saved.
in_style = matplotlib.rc_context(STYLE)


@dataclass(frozen=True)
class Drawing:
    """A figure, and its caption: what is shown, of how many, and what the intervals are."""

    figure: Figure
    caption: str

    def save(self, *, svg: Path, png: Path, caption: Path) -> None:
        """Save as SVG, PNG and plain text, each whole or not at all; the same bytes for the same drawing."""
        with matplotlib.rc_context(STYLE):
            with write_atomically(svg) as stream:
                self.figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
            with write_atomically(png) as stream:
                self.figure.savefig(stream, format="png", dpi=PNG_DOTS_PER_INCH, metadata={"Software": None})
        write_text(caption, self.caption + "\n")
