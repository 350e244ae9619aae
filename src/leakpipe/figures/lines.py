"""Means over draws with their intervals, drawn as lines over faint dots, and the labels of lines and points."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from leakpipe.figures.style import COLORS, MARKERS, MUTED
from leakpipe.randomness import derive_seed
from leakpipe.tables.statistics import FEWEST_CLUSTERS, bootstrap_mean

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

INTERVAL = (
    f"A bar is the 95 % interval of a mean over draws (seeds), by bootstrap of whole draws; fewer than "
    f"{FEWEST_CLUSTERS} draws have none."
)
_SEED = derive_seed("intervals of figures")
PUBLISHED: dict[str, Any] = {"linestyle": ":", "linewidth": 0.9, "marker": "x", "markersize": 5}


@dataclass(frozen=True)
class Mean:
    """A mean over values, and the 95 % interval over draws; its ends are NaN for fewer than 3 draws."""

    value: float
    low: float
    high: float


def mean_over_draws(rows: pd.DataFrame, column: str) -> Mean:
    """The mean of `column` over all rows, with the interval over draws (`bootstrap_mean` of whole seeds).

    Args:
        rows: Rows with a column `seed`; the column holds finite numbers.
        column: Name of the column.
    """
    low, high = bootstrap_mean(rows[column], clusters=rows["seed"], seed=_SEED)
    return Mean(float(rows[column].mean()), low, high)


@dataclass(frozen=True)
class Look:
    """The look of one line; a dashed line has hollow markers."""

    color: str
    marker: str
    dashed: bool = False

    @classmethod
    def of(cls, index: int, *, dashed: bool = False) -> Look:
        """The look of the `index`-th client."""
        return cls(COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)], dashed)


def draw_means(
    axes: Axes, rows: pd.DataFrame, column: str, *, place: str, shift: float, label: str, look: Look
) -> None:
    """Draw a line through the mean at each place, with its interval over draws, and a faint dot for each value.

    Args:
        axes: Where to draw.
        rows: Rows with the columns `column`, `place` and `seed`.
        column: Column of the values.
        place: Column of their places on the x axis.
        shift: Moves everything sideways, so that lines do not hide each other's dots.
        label: Name of the line.
        look: How it looks.
    """
    axes.plot(
        rows[place] + shift,
        rows[column],
        look.marker,
        color=look.color,
        markerfacecolor="none" if look.dashed else look.color,
        markeredgewidth=1 if look.dashed else 0,
        alpha=0.4 if look.dashed else 0.25,
        markersize=4,
        zorder=2,
    )
    places = sorted(rows[place].unique())
    means = {where + shift: mean_over_draws(rows[rows[place] == where], column) for where in places}
    axes.plot(
        list(means),
        [mean.value for mean in means.values()],
        linestyle="--" if look.dashed else "-",
        marker=look.marker,
        markerfacecolor="white" if look.dashed else look.color,
        color=look.color,
        label=label,
        zorder=3,
    )
    for where, mean in means.items():
        draw_interval(axes, where, mean, color=look.color)


def draw_interval(axes: Axes, x: float, mean: Mean, *, color: str) -> None:
    """Draw the interval of a mean as an upright bar; nothing where there is none."""
    if not math.isnan(mean.low):
        axes.vlines(x, mean.low, mean.high, color=color, linewidth=1.5, zorder=2.5)


def draw_published(axes: Axes, values: Mapping[float, float], *, shift: float, color: str) -> None:
    """Draw values that the paper published (place on the x axis → value): thin, dotted, with crosses."""
    axes.plot([place + shift for place in values], list(values.values()), color=color, zorder=2, **PUBLISHED)


def mark_zero(axes: Axes) -> None:
    """Draw the line above which an image leaked, and say at its tick what it means."""
    axes.axhline(0, color=MUTED, linewidth=1, zorder=1)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−") if value else "prior: 0")


def use_log_scale(axes: Axes) -> None:
    """Make the x axis logarithmic, with plain numbers (1, 2, 5, 10, …) also where it spans less than a decade."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def label_ends(axes: Axes, ends: list[tuple[float, str, str]]) -> None:
    """Write each line's name at the right of where it ends, moved apart where ends are close.

    Args:
        axes: Where the lines are; its limits must be final.
        ends: Last value, name (at most two lines of text) and colour of each line.
    """
    low, high = axes.get_ylim()
    heights = spread([height for height, _, _ in ends], gap=0.12 * (high - low))
    for height, (_, text, color) in zip(heights, ends, strict=True):
        axes.annotate(
            text, (1.015, height), xycoords=("axes fraction", "data"), va="center", color=color, fontsize=9
        ).set_annotation_clip(False)


def name_points(axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Write each point's name in a column at the right of the axes, joined to its point by a thin line.

    Args:
        axes: Where the points are; its limits must be final.
        points: Place on the x axis, place on the y axis and name of each.
    """
    low, high = axes.get_ylim()
    heights = spread([y for _, y, _ in points], gap=0.055 * (high - low))
    for (x, y, text), height in zip(points, heights, strict=True):
        axes.annotate(
            text,
            (x, y),
            xytext=(1.03, (height - low) / (high - low)),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.5, "alpha": 0.6, "relpos": (0, 0.5)},
        )


def spread(values: list[float], *, gap: float) -> list[float]:
    """Move labels' heights apart until neighbours differ by `gap`, keeping order and their common centre.

    Args:
        values: Wanted heights, in any order.
        gap: Smallest distance allowed, in the same unit.

    Returns:
        Heights in the order of `values`.
    """
    order = sorted(range(len(values)), key=lambda index: values[index])
    groups: list[tuple[list[int], float]] = []  # members, and the centre of what they want
    for index in order:
        members, centre = [index], values[index]
        while groups and centre - gap * (len(members) - 1) / 2 < (
            groups[-1][1] + gap * (len(groups[-1][0]) - 1) / 2 + gap
        ):
            below, _ = groups.pop()
            members = below + members
            centre = sum(values[member] for member in members) / len(members)
        groups.append((members, centre))
    placed = list(values)
    for members, centre in groups:
        for rank, member in enumerate(members):
            placed[member] = centre + gap * (rank - (len(members) - 1) / 2)
    return placed
