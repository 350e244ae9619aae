"""Leakage of the worst client against test accuracy, defence by defence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leakpipe.errors import LeakpipeError
from leakpipe.figures.lines import INTERVAL, Mean, draw_interval, mark_zero, mean_over_draws, name_points
from leakpipe.figures.registry import figure
from leakpipe.figures.style import COLORS, MUTED, Drawing, make_panels
from leakpipe.tables.statistics import add_gain
from leakpipe.tables.wording import Clients, count, count_sample, order_clients, select

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Point:
    """One defence: what the client that leaks most under it gives away, and the accuracy that is left."""

    name: str
    client: str
    gain: Mean
    accuracy: Mean
    destroyed: bool

    @property
    def label(self) -> str:
        """What is written beside the point."""
        return f"{self.name} ({self.client}{', accuracy at chance' if self.destroyed else ''})"

    @property
    def color(self) -> str:
        """Gray where the model learned nothing, so that a small leak is no merit of the defence."""
        return MUTED if self.destroyed else COLORS[0]


@figure(
    "tradeoff",
    heading="Privacy against accuracy",
    about="Leakage of the client that leaks most against test accuracy, a point per defence; down and right is better.",
)
def draw_tradeoff(
    leakage: pd.DataFrame,
    accuracy: pd.DataFrame,
    defense_table: pd.DataFrame,
    *,
    attack: str,
    defenses: Mapping[str, str],
    clients: Clients,
) -> Drawing:
    """Draw a point per defence, and a line through those that no other defence beats in both.

    Args:
        leakage: The leakage table: all captured rounds, seeds and images of `attack` count.
        accuracy: The accuracy table: the last round counts.
        defense_table: The table of defences, which says where accuracy is at chance.
        attack: Attack that leaks.
        defenses: What to call each defence.
        clients: The `federation.clients` section of the parameters.
    """
    from leakpipe.tables.defenses import find_front

    rows = add_gain(select(leakage, attack=attack))
    destroyed = set(defense_table.loc[defense_table["destroyed"], "defense"])
    kept = accuracy[accuracy["round"] == accuracy["round"].max()]
    points = [
        _locate(rows[rows["defense"] == name], select(kept, defense=name), text, clients, destroyed=name in destroyed)
        for name, text in defenses.items()
        if name in set(rows["defense"])
    ]
    if not points:
        raise LeakpipeError(f"the tables have no rows for any of the defences {', '.join(defenses)}")
    drawn, panels = make_panels(7.6, 4.2)
    axes = panels[0, 0]
    best = find_front([(point.accuracy.value, point.gain.value) for point in points])
    front = sorted((points[index].accuracy.value, points[index].gain.value) for index in best)
    axes.plot(*zip(*front, strict=True), color=MUTED, linewidth=1, linestyle="--", zorder=1)
    for point in points:
        draw_interval(axes, point.accuracy.value, point.gain, color=point.color)
        if not math.isnan(point.accuracy.low):
            axes.hlines(point.gain.value, point.accuracy.low, point.accuracy.high, color=point.color, linewidth=1.5)
        axes.plot(point.accuracy.value, point.gain.value, "o", color=point.color, markersize=8, zorder=4)
    mark_zero(axes)
    axes.margins(0.12)
    name_points(axes, [(point.accuracy.value, point.gain.value, point.label) for point in points])
    _mark_better(axes)
    axes.set_title("Privacy against accuracy, defence by defence")
    axes.set_xlabel(f"Test accuracy after round {int(kept['round'].max())}")
    axes.set_ylabel("Leakage of the worst client\n(SSIM gained over the prior)")
    worst = ", ".join(f"{point.name}: {point.client}" for point in points)
    at_chance = ", ".join(point.name for point in points if point.destroyed)
    caption = (
        f"One point per defence: mean SSIM that attack {attack} gains over the prior image, of the client that leaks "
        f"most under that defence ({worst}), against mean test accuracy; down and right is better, and at 0 a "
        f"reconstruction shows no more than the prior image. The dashed line joins the defences that no other "
        f"beats in both. "
        f"{f'Gray, accuracy at chance: {at_chance}. ' if at_chance else ''}{INTERVAL} The "
        f"worst client is chosen by the same numbers. Leakage over {count_sample(rows, 'seed', 'round')}; accuracy "
        f"over {count(kept['seed'].nunique(), 'seed')}."
    )
    return Drawing(drawn, caption)


def _locate(rows: pd.DataFrame, kept: pd.DataFrame, name: str, clients: Clients, *, destroyed: bool) -> Point:
    means = {client: mean_over_draws(rows[rows["client"] == client], "gain") for client in order_clients(rows, clients)}
    worst = max(means, key=lambda client: means[client].value)
    return Point(name, worst, means[worst], mean_over_draws(kept, "test_accuracy"), destroyed)


def _mark_better(axes: Axes) -> None:
    """An arrow down and right, where only a useless defence would have its point."""
    axes.annotate(
        "better",
        xy=(0.15, 0.8),
        xytext=(0.06, 0.95),
        xycoords="axes fraction",
        textcoords="axes fraction",
        color=MUTED,
        fontsize=10,
        ha="center",
        arrowprops={"arrowstyle": "->", "color": MUTED, "linewidth": 1.5},
    )
