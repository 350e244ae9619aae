"""The choice of a defence: the leak that each leaves against the accuracy that it keeps, and what it guarantees."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan
from typing import TYPE_CHECKING, Any

from leakpipe.figures.lines import INTERVAL, mark_zero, name_points
from leakpipe.figures.registry import figure
from leakpipe.figures.style import COLORS, MUTED, Drawing, add_legend, make_key, make_panels
from leakpipe.tables.wording import CANNOT_TELL, LEAKS, NOTHING_FOUND, Clients, count, describe_client

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

OF_VERDICT = {LEAKS: COLORS[0], CANNOT_TELL: COLORS[3], NOTHING_FOUND: COLORS[1]}
DESTROYED = MUTED
NAMED = 20  # with more defences than this, only those on the front or without a leak are named


@figure(
    "front",
    heading="Which defence to switch on",
    about="RDLV of the high-risk client, of attacks that know the defence and (hollow) of others, against test "
    "accuracy, a point per defence, coloured by its verdict; a diamond has a guarantee.",
)
def draw_front(defense_table: pd.DataFrame, *, defenses: Mapping[str, str], clients: Clients) -> Drawing:
    """Draw a point per defence, hollow for an attack that does not know the defence, and the front of all.

    Args:
        defense_table: The table of defences (`leakpipe.tables.defenses`).
        defenses: What to call each defence.
        clients: The `federation.clients` section of the parameters.
    """
    table = defense_table
    rows = [{str(column): value for column, value in row.items()} for row in table.to_dict("records")]
    drawn, panels = make_panels(8, 4.8)
    axes = panels[0, 0]
    front = table[table["front"]].sort_values(["accuracy", "rdlv"])
    axes.plot(front["accuracy"], front["rdlv"], color=MUTED, linewidth=1, linestyle="--", zorder=1)
    for row in rows:
        _draw_defense(axes, row)
    axes.margins(0.12)
    mark_zero(axes)
    named = [row for row in rows if len(rows) <= NAMED or row["front"] or row["verdict"] != LEAKS or row["destroyed"]]
    name_points(axes, [(row["accuracy"], row["rdlv"], _name(row, defenses)) for row in named])
    axes.set_title("Leakage and accuracy under each defence")
    axes.set_xlabel("Test accuracy after the last round")
    client = str(table["client"].iloc[0])
    axes.set_ylabel(f"RDLV of {describe_client(client, clients[client])}")
    add_legend(drawn, _list_keys(table), columns=4)
    return Drawing(drawn, _describe(table, defenses))


def _draw_defense(axes: Axes, row: Mapping[str, Any]) -> None:
    color = DESTROYED if row["destroyed"] else OF_VERDICT[row["verdict"]]
    marker = "o" if isnan(row["epsilon"]) else "D"
    found = [whose for whose in ("naive", "adaptive") if not isnan(row[f"{whose}_rdlv"])]
    axes.plot([row["accuracy"]] * len(found), [row[f"{whose}_rdlv"] for whose in found], ":", color=color, linewidth=1)
    axes.hlines(row["rdlv"], row["accuracy_low"], row["accuracy_high"], color=color, linewidth=1, alpha=0.5, zorder=2)
    for whose in found:
        low, high = row[f"{whose}_rdlv_low"], row[f"{whose}_rdlv_high"]
        axes.vlines(row["accuracy"], low, high, color=color, linewidth=1, alpha=0.5, zorder=2)
        face = "white" if whose == "naive" else color
        axes.plot(row["accuracy"], row[f"{whose}_rdlv"], marker, color=color, markerfacecolor=face, zorder=4)


def _name(row: Mapping[str, Any], names: Mapping[str, str]) -> str:
    epsilon = "" if isnan(row["epsilon"]) else f", ε = {row['epsilon']:.3g}"
    return f"{names[row['defense']]}{epsilon}"


def _list_keys(table: pd.DataFrame) -> list[Line2D]:
    words = set(table["verdict"])
    keys = [make_key(word, color, marker="o") for word, color in OF_VERDICT.items() if word in words]
    if table["destroyed"].any():
        keys.append(make_key("accuracy at chance", DESTROYED, marker="o"))
    if table["epsilon"].notna().any():
        keys.append(make_key("has an ε", MUTED, marker="D"))
    if table["naive_rdlv"].notna().any():
        keys.append(make_key("attack does not know the defence", MUTED, marker="o", hollow=True))
    return [*keys, make_key("front", MUTED, linewidth=1, linestyle="--")]


def _describe(table: pd.DataFrame, names: Mapping[str, str]) -> str:
    silent = table[table["verdict"] != LEAKS]
    client, draws = table["client"].iloc[0], int(table["draws"].min())
    if silent.empty:
        said = "It leaks under every defence"
    else:
        first = silent.iloc[0]
        said = f"Verdict on {names[first['defense']]}, accuracy {first['accuracy']:.2f}: {first['verdict']}"
    destroyed = [names[name] for name in table.loc[table["destroyed"], "defense"]]
    return (
        f"One point per defence ({len(table)}): mean RDLV of {client}, of the attack that gets most out of it, against "
        f"mean test accuracy; at 0 a reconstruction is on average as similar as the prior image, which is not "
        f"anonymity: the verdict also counts single images and who is recognised. {said}. "
        f"{'Accuracy at chance: ' + ', '.join(destroyed) + '. ' if destroyed else ''}"
        f"The dashed line joins the defences that no other beats in both. Where these attacks find no "
        f"leak, others may: only a diamond has a guarantee, whose ε defenses.csv gives. {INTERVAL} "
        f"n: at least {count(draws, 'draw')} a point."
    )
