"""How much each client leaks, round by round."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from leakpipe.figures.lines import Look, draw_means, label_ends, mark_zero
from leakpipe.figures.selection import count, describe_client, order_clients, select
from leakpipe.figures.style import in_style


@in_style
def plot_rounds(
    leakage: pd.DataFrame,
    *,
    attack: str,
    defense: str,
    clients: Mapping[str, Mapping[str, Any]],
    compare: Sequence[str] = (),
) -> Figure:
    """Draw RDLV against the captured rounds: a line of means per client, a faint dot per image.

    Args:
        leakage: The leakage table; rows whose RDLV is undefined are left out.
        attack: Attack drawn with full lines.
        defense: Defence whose rows are drawn.
        clients: The `federation.clients` section of the parameters.
        compare: Other attacks, drawn dashed for the clients that they were run on.
    """
    lines = _lines(leakage, attack, defense, clients, compare)
    rounds = sorted({int(value) for line in lines for value in line.rows["round"]})
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    gap = min((later - earlier for earlier, later in pairwise(rounds)), default=1)
    for index, line in enumerate(lines):
        shift = 0.07 * gap * (index - (len(lines) - 1) / 2)
        draw_means(axes, line.rows["round"], line.rows["rdlv"], shift=shift, label=line.name, look=line.look)
    mark_zero(axes)
    axes.set_title("Leakage of each client, round by round")
    axes.set_xlabel("Round of federated averaging")
    axes.set_ylabel("RDLV (relative gain over the prior)")
    axes.set_xticks(rounds)
    margin = max(0.35 * gap, 0.05 * (rounds[-1] - rounds[0]))
    axes.set_xlim(rounds[0] - margin, rounds[-1] + margin)
    last = [float(line.rows.groupby("round")["rdlv"].mean().iloc[-1]) for line in lines]
    label_ends(axes, [(end, line.label, line.look.color) for end, line in zip(last, lines, strict=True)])
    return figure


def describe_rounds(
    leakage: pd.DataFrame,
    *,
    attack: str,
    defense: str,
    clients: Mapping[str, Mapping[str, Any]],
    compare: Sequence[str] = (),
) -> str:
    """Say in words what `plot_rounds` draws for the same arguments: the caption."""
    lines = _lines(leakage, attack, defense, clients, compare)
    parts = []
    for line in lines:
        images, seeds = line.rows["image"].nunique(), line.rows["seed"].nunique()
        parts.append(f"{line.name}: {count(images, 'image')}, {count(seeds, 'seed')}")
    dashed = f", dashed {', '.join(compare)}" if any(line.look.dashed for line in lines) else ""
    return (
        f"RDLV in each captured round under defence {defense}, attack {attack}{dashed}. A faint dot is one image, "
        f"the line their mean; 0 means that the attack told no more than its prior image. {'; '.join(parts)}."
    )


@dataclass(frozen=True)
class _Line:
    rows: pd.DataFrame
    name: str
    label: str
    look: Look


def _lines(
    leakage: pd.DataFrame,
    attack: str,
    defense: str,
    clients: Mapping[str, Mapping[str, Any]],
    compare: Sequence[str],
) -> list[_Line]:
    """What is drawn: `attack` on all clients, then each compared attack on those that it was run on."""
    chosen = select(leakage, defense=defense).dropna(subset=["rdlv"])
    names = order_clients(select(chosen, attack=attack), clients)
    lines = []
    for client in names:
        label = describe_client(client, clients[client]).replace(", ", ",\n")
        rows = select(chosen, attack=attack, client=client)
        lines.append(_Line(rows, client, label, Look.of(names.index(client))))
    for other in compare:
        for client in order_clients(chosen[chosen["attack"] == other], clients):
            look = Look.of(names.index(client) if client in names else len(names), dashed=True)
            rows = select(chosen, attack=other, client=client)
            lines.append(_Line(rows, f"{client}, {other}", f"{client}, attack\n{other}", look))
    return lines
