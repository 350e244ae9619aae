"""Leakage of the worst client against test accuracy, defence by defence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leakpipe.errors import LeakpipeError
from leakpipe.figures.lines import INTERVAL, Mean, draw_interval, mark_zero, mean_over_draws, name_points, spread
from leakpipe.figures.registry import figure
from leakpipe.figures.style import COLORS, MUTED, Drawing, add_legend, make_key, make_panels
from leakpipe.tables.strongest import keep_naive, keep_strongest
from leakpipe.tables.wording import count, select

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

APART = 0.015  # of the range of accuracies


@dataclass(frozen=True)
class Point:
    """One defence: what the client that leaks most under it gives away in its worst round, and the accuracy left."""

    name: str
    client: str
    attack: str
    captured_round: int
    seeds: int
    gain: Mean
    naive: float
    accuracy: Mean
    destroyed: bool

    @property
    def label(self) -> str:
        """The text beside the point."""
        return f"{self.name} ({self.client}{', accuracy at chance' if self.destroyed else ''})"

    @property
    def color(self) -> str:
        """Gray where the model learned nothing, so that a small leak is no merit of the defence."""
        return MUTED if self.destroyed else COLORS[0]


@figure(
    "tradeoff",
    heading="Privacy against accuracy",
    about="What the strongest attack gets of the client that leaks most, against test accuracy, a point per defence; "
    "hollow for an attack that does not know the defence; down and right is better.",
)
def draw_tradeoff(
    leakage: pd.DataFrame,
    accuracy: pd.DataFrame,
    defense_table: pd.DataFrame,
    *,
    adaptive: Sequence[str],
    defenses: Mapping[str, str],
) -> Drawing:
    """Draw a point per defence, and a line through those that no other defence beats in both.

    Args:
        leakage: The leakage table: of each defence, the attack, client and captured round with the largest mean gain.
        accuracy: The accuracy table: the last round counts.
        defense_table: The table of defences, which says where accuracy is at chance.
        adaptive: Attacks that know the defence.
        defenses: What to call each defence.
    """
    from leakpipe.tables.defenses import find_front

    rows, naive = keep_strongest(leakage, each=("defense",)), keep_strongest(keep_naive(leakage, adaptive))
    destroyed = set(defense_table.loc[defense_table["destroyed"], "defense"])
    kept = accuracy[accuracy["round"] == accuracy["round"].max()]
    points = [
        _locate(rows[rows["defense"] == name], naive, select(kept, defense=name), text, destroyed=name in destroyed)
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
    accuracies = [point.accuracy.value for point in points]
    apart = spread(accuracies, gap=APART * max(max(accuracies) - min(accuracies), APART))
    for point, x in zip(points, apart, strict=True):  # bars of equal accuracies stand side by side
        draw_interval(axes, x, point.gain, color=point.color)
        if not math.isnan(point.accuracy.low):
            axes.hlines(
                point.gain.value, point.accuracy.low, point.accuracy.high, color=point.color, linewidth=1, alpha=0.5
            )
        axes.plot(x, point.gain.value, "o", color=point.color, markersize=8, zorder=4)
        if point.naive < point.gain.value:
            axes.plot([x, x], [point.naive, point.gain.value], ":", color=point.color, linewidth=1, zorder=1)
            axes.plot(x, point.naive, "s", color=point.color, markerfacecolor="white", zorder=3)
    mark_zero(axes)
    axes.margins(0.12)
    name_points(axes, [(x, point.gain.value, point.label) for point, x in zip(points, apart, strict=True)])
    _mark_better(axes)
    axes.set_title("Privacy against accuracy, defence by defence")
    axes.set_xlabel(f"Test accuracy after round {int(kept['round'].max())}")
    axes.set_ylabel("Leakage of the worst client\n(SSIM gained over the prior)")
    keys = [make_key("strongest attack", COLORS[0], marker="o")]
    if any(point.naive < point.gain.value for point in points):
        keys.append(make_key("attack that does not know the defence", COLORS[0], marker="s", hollow=True))
    add_legend(drawn, keys, columns=2)
    worst = "; ".join(
        f"{point.name}: {point.client}, {point.attack}, round {point.captured_round}, {count(point.seeds, 'seed')}"
        for point in points
    )
    at_chance = ", ".join(point.name for point in points if point.destroyed)
    caption = (
        "One point per defence: mean SSIM gained over the prior image by the strongest attack in its worst round on "
        f"the client that leaks most under that defence ({worst}), against mean test accuracy over "
        f"{count(kept['seed'].nunique(), 'seed')}; down and right is better, and at 0 a reconstruction shows on "
        "average no more than the prior image. Hollow: the same of the strongest attack that does not know the "
        "defence. The dashed line joins the defences that no other beats in both. "
        f"{f'Gray, accuracy at chance: {at_chance}. ' if at_chance else ''}{INTERVAL} Attack, client and round are "
        "chosen by the same numbers; points of nearly equal accuracy are drawn a little apart."
    )
    return Drawing(drawn, caption)


def _locate(rows: pd.DataFrame, naive: pd.DataFrame, kept: pd.DataFrame, name: str, *, destroyed: bool) -> Point:
    first = rows.iloc[0]
    client, defense, captured_round = first["client"], first["defense"], int(first["round"])
    without = naive[(naive["client"] == client) & (naive["defense"] == defense) & (naive["round"] == captured_round)]
    return Point(
        name=name,
        client=client,
        attack=first["attack"],
        captured_round=captured_round,
        seeds=rows["seed"].nunique(),
        gain=mean_over_draws(rows, "gain"),
        naive=float(without["gain"].mean()),
        accuracy=mean_over_draws(kept, "test_accuracy"),
        destroyed=destroyed,
    )


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
