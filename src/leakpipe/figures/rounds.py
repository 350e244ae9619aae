"""How much each client leaks, round by round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from leakpipe.figures import published
from leakpipe.figures.lines import INTERVAL, Look, draw_means, draw_published, label_ends, mark_zero
from leakpipe.figures.registry import figure
from leakpipe.figures.style import Drawing, make_panels
from leakpipe.tables.statistics import add_gain
from leakpipe.tables.wording import Clients, count_sample, describe_client, order_clients, select

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


@figure(
    "rounds",
    heading="Leakage by round",
    about="RDLV and gain in SSIM of each client in each captured round; other attacks are dashed. Above 0 a "
    "reconstruction shows more of an image than the prior does: that much leaked.",
)
def draw_rounds(
    leakage: pd.DataFrame, *, attack: str, defense: str, clients: Clients, compare: Sequence[str] = ()
) -> Drawing:
    """Draw RDLV and the gain in SSIM against the captured rounds: a line of means per client, a faint dot per image.

    Args:
        leakage: The leakage table; rows whose RDLV is undefined are left out.
        attack: Attack drawn with full lines.
        defense: Defence whose rows are drawn.
        clients: The `federation.clients` section of the parameters.
        compare: Other attacks, drawn dashed for the clients that they were run on.
    """
    lines = _list_lines(leakage, attack, defense, clients, compare)
    rounds = sorted({int(value) for line in lines for value in line.rows["round"]})
    drawn, panels = make_panels(7.2, 5.8, rows=2, sharex=True, height_ratios=[1.7, 1])
    upper, lower = panels[:, 0]
    gap = min((later - earlier for earlier, later in pairwise(rounds)), default=1)
    shifts = [0.07 * gap * (index - (len(lines) - 1) / 2) for index in range(len(lines))]
    for axes, column in ((upper, "rdlv"), (lower, "gain")):
        for line, shift in zip(lines, shifts, strict=True):
            draw_means(axes, line.rows, column, place="round", shift=shift, label=line.name, look=line.look)
        mark_zero(axes)
    for line, shift in zip(lines, shifts, strict=True):
        if line.published:
            draw_published(upper, line.published, shift=shift, color=line.look.color)
    upper.set_title("Leakage of each client, round by round")
    upper.set_ylabel("RDLV\n(relative gain over the prior)")
    lower.set_ylabel("SSIM gained\nover the prior")
    lower.set_xlabel("Round of federated averaging")
    _label(upper, lines, rounds, gap)
    return Drawing(drawn, _describe(lines, attack, defense, compare))


def _label(axes: Axes, lines: Sequence[_Line], rounds: Sequence[int], gap: int) -> None:
    axes.set_xticks(rounds)
    margin = max(0.35 * gap, 0.05 * (rounds[-1] - rounds[0]))
    axes.set_xlim(rounds[0] - margin, rounds[-1] + margin)
    last = [float(line.rows.groupby("round")["rdlv"].mean().iloc[-1]) for line in lines]
    label_ends(axes, [(end, line.label, line.look.color) for end, line in zip(last, lines, strict=True)])


def _describe(lines: Sequence[_Line], attack: str, defense: str, compare: Sequence[str]) -> str:
    samples = "; ".join(f"{line.name}: {count_sample(line.rows, 'image', 'seed')}" for line in lines)
    dashed = f", dashed {', '.join(compare)}" if any(line.look.dashed for line in lines) else ""
    source = f" {published.SOURCE}, where it has a value for a captured round."
    return (
        f"RDLV (above) and the gain in SSIM over the prior image (below) in each captured round under defence "
        f"{defense}, attack {attack}{dashed}. A faint dot is one image, the line their mean; at 0 a reconstruction "
        f"shows no more than the prior image. {INTERVAL} {samples}."
        f"{source if any(line.published for line in lines) else ''}"
    )


@dataclass(frozen=True)
class _Line:
    rows: pd.DataFrame
    name: str
    label: str
    look: Look
    published: Mapping[float, float]


def _list_lines(
    leakage: pd.DataFrame, attack: str, defense: str, clients: Clients, compare: Sequence[str]
) -> list[_Line]:
    """What is drawn: `attack` on all clients, then each compared attack on those that it was run on."""
    chosen = add_gain(select(leakage, defense=defense).dropna(subset=["rdlv"]))
    names = order_clients(select(chosen, attack=attack), clients)
    lines = []
    for client in names:
        label = describe_client(client, clients[client]).replace(", ", ",\n")
        rows = select(chosen, attack=attack, client=client)
        known = published.RDLV_BY_ROUND.get(client, {})
        shown = {place: value for place, value in known.items() if place in set(rows["round"])}
        lines.append(_Line(rows, client, label, Look.of(names.index(client)), shown))
    for other in compare:
        for client in order_clients(chosen[chosen["attack"] == other], clients):
            look = Look.of(names.index(client) if client in names else len(names), dashed=True)
            rows = select(chosen, attack=other, client=client)
            lines.append(_Line(rows, f"{client}, {other}", f"{client}, attack\n{other}", look, {}))
    return lines
