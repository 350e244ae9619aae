"""Which defence to switch on: the leak that each leaves against the accuracy that it keeps, and what it guarantees."""

from collections.abc import Mapping
from math import isnan
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leakpipe.figures.lines import mark_zero, name_points
from leakpipe.figures.means import INTERVAL
from leakpipe.figures.style import COLORS, MUTED, Drawing, in_style
from leakpipe.tables.wording import count, describe_client

LEAKS, HIDES, DESTROYED = COLORS[0], COLORS[1], MUTED
NAMED = 20  # with more defences than this, only those on the front or at or below 0 are named


@in_style
def draw_front(table: pd.DataFrame, *, names: Mapping[str, str], clients: Mapping[str, Mapping[str, Any]]) -> Drawing:
    """Draw a point per defence, hollow for an attack that is told the defence, and the front of all.

    Args:
        table: The defence table (`leakpipe.tables.defenses`).
        names: What to call each defence.
        clients: The `federation.clients` section of the parameters.
    """
    rows = [{str(column): value for column, value in row.items()} for row in table.to_dict("records")]
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    front = table[table["front"]].sort_values(["accuracy", "rdlv"])
    axes.plot(front["accuracy"], front["rdlv"], color=MUTED, linewidth=1, linestyle="--", zorder=1)
    for row in rows:
        _draw_defense(axes, row)
    axes.margins(0.12)
    mark_zero(axes)
    named = [row for row in rows if len(rows) <= NAMED or row["front"] or row["rdlv"] <= 0 or row["destroyed"]]
    name_points(axes, [(row["accuracy"], row["rdlv"], _name(row, names)) for row in named])
    axes.set_title("What each defence hides, and what it costs")
    axes.set_xlabel("Test accuracy after the last round")
    client = str(table["client"].iloc[0])
    axes.set_ylabel(f"RDLV of {describe_client(client, clients[client])}")
    figure.legend(handles=_legend(table), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return Drawing(figure, _describe(table, names))


def _draw_defense(axes: Axes, row: Mapping[str, Any]) -> None:
    color = DESTROYED if row["destroyed"] else LEAKS if row["rdlv"] > 0 else HIDES
    marker = "o" if isnan(row["epsilon"]) else "D"
    found = [whose for whose in ("naive", "adaptive") if not isnan(row[f"{whose}_rdlv"])]
    axes.plot([row["accuracy"]] * len(found), [row[f"{whose}_rdlv"] for whose in found], ":", color=color, linewidth=1)
    axes.hlines(row["rdlv"], row["accuracy_low"], row["accuracy_high"], color=color, linewidth=1, alpha=0.5, zorder=2)
    for whose in found:
        low, high = row[f"{whose}_rdlv_low"], row[f"{whose}_rdlv_high"]
        axes.vlines(row["accuracy"], low, high, color=color, linewidth=1, alpha=0.5, zorder=2)
        face = "white" if whose == "adaptive" else color
        axes.plot(row["accuracy"], row[f"{whose}_rdlv"], marker, color=color, markerfacecolor=face, zorder=4)


def _name(row: Mapping[str, Any], names: Mapping[str, str]) -> str:
    epsilon = "" if isnan(row["epsilon"]) else f", ε = {row['epsilon']:.3g}"
    return f"{names[row['defense']]}{epsilon}"


def _legend(table: pd.DataFrame) -> list[Line2D]:
    def dot(color: str, label: str, *, marker: str = "o", hollow: bool = False) -> Line2D:
        face = "white" if hollow else color
        return Line2D([], [], color=color, marker=marker, markerfacecolor=face, linestyle="none", label=label)

    entries = [dot(LEAKS, "leaks"), dot(HIDES, "hides (RDLV ≤ 0)")]
    if table["destroyed"].any():
        entries.append(dot(DESTROYED, "accuracy at chance"))
    if table["epsilon"].notna().any():
        entries.append(dot(MUTED, "has an ε", marker="D"))
    if table["adaptive_rdlv"].notna().any():
        entries.append(dot(MUTED, "attack told the defence", hollow=True))
    return [*entries, Line2D([], [], color=MUTED, linewidth=1, linestyle="--", label="front")]


def _describe(table: pd.DataFrame, names: Mapping[str, str]) -> str:
    hiding = table[table["rdlv"] <= 0]
    client, draws = table["client"].iloc[0], int(table["draws"].min())
    if hiding.empty:
        said = "No defence brings it to 0 or below"
    else:
        first = hiding.iloc[0]
        said = f"Of those at or below 0, {names[first['defense']]} keeps the most accuracy ({first['accuracy']:.2f})"
    destroyed = [names[name] for name in table.loc[table["destroyed"], "defense"]]
    return (
        f"One point per defence ({len(table)}): mean RDLV of {client}, of the attack that gets most out of it, against "
        f"mean test accuracy; down and right is better, and at 0 the attack told no more than the prior image. {said}. "
        f"{'Accuracy at chance: ' + ', '.join(destroyed) + '. ' if destroyed else ''}"
        f"The dashed line joins the defences that no other beats in both. A defence that hides from these attacks need "
        f"not hide from others: only a diamond has a guarantee, whose ε defenses.csv gives. {INTERVAL} "
        f"n: at least {count(draws, 'draw')} a point."
    )
