"""The yield of each attack for its time: similarity against wall time, a panel per client and round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from leakpipe.figures.lines import INTERVAL, draw_interval, mean_over_draws, use_log_scale
from leakpipe.figures.registry import figure
from leakpipe.figures.style import COLORS, GRID, INK, MARKERS, MUTED, Drawing, add_legend, make_key, make_panels
from leakpipe.tables.wording import Clients, count, describe_client, order_clients, select

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

LOOKS = [
    *zip(COLORS, MARKERS, strict=True),
    *[(INK, "X"), (MUTED, "*"), (INK, "<"), (MUTED, ">")],
    *((color, marker) for marker in ("x", "1", "+") for color in COLORS),
]


@figure(
    "attacks",
    heading="Attacks by wall time",
    about="Mean SSIM of the reconstructed images against the wall time of each attack, a panel per client and captured "
    "round; up and left is better.",
)
def draw_attacks(leakage: pd.DataFrame, *, attacks: Sequence[str], defense: str, clients: Clients) -> Drawing:
    """Draw mean SSIM against wall time: a large marker per attack, a faint one per draw, the prior as a line.

    Args:
        leakage: The leakage table.
        attacks: Attacks in the order of the legend.
        defense: Defence whose rows are drawn.
        clients: The `federation.clients` section of the parameters.
    """
    from leakpipe.tables.comparisons import per_attack_run

    runs = per_attack_run(select(leakage, defense=defense))
    names, rounds = order_clients(runs, clients), sorted(runs["round"].unique())
    present = [attack for attack in attacks if attack in set(runs["attack"])]
    looks = {attack: LOOKS[index % len(LOOKS)] for index, attack in enumerate(present)}
    width, height = 1.0 + 2.1 * len(names), 1.2 + 2.2 * len(rounds)
    drawn, panels = make_panels(width, height, len(rounds), len(names), sharex=True, sharey=True)
    for row, captured in enumerate(rounds):
        for column, client in enumerate(names):
            chosen = runs[(runs["client"] == client) & (runs["round"] == captured)]
            _draw_panel(panels[row, column], chosen, looks)
            if row == 0:
                title = describe_client(client, clients[client]).replace(": ", ":\n")
                panels[row, column].set_title(title, fontsize=9)
        panels[row, 0].set_ylabel(f"SSIM, round {captured}")
    use_log_scale(panels[0, 0])
    panels[0, 0].set_ylim(min(-0.05, float(runs["ssim"].min()) - 0.05), 1.05)
    drawn.supxlabel("Wall time of one attack, seconds (log scale)", fontsize=10)
    keys = [make_key(attack, color, marker=marker) for attack, (color, marker) in looks.items()]
    prior = make_key("prior image", MUTED, linestyle="--", linewidth=1)
    add_legend(drawn, [*keys, prior], loc="outside right center")
    return Drawing(drawn, _describe(runs, attacks, defense, clients))


def _describe(runs: pd.DataFrame, attacks: Sequence[str], defense: str, clients: Clients) -> str:
    parts = []
    for client in order_clients(runs, clients):
        draws = runs[runs["client"] == client].groupby("attack")["seed"].nunique()
        most, least = int(draws.max()), int(draws.min())
        parts.append(f"{client}: {count(most, 'draw')}" if most == least else f"{client}: {least} to {most} draws")
    return (
        f"Mean SSIM of a client's reconstructed images against the wall time of the attack, under defence {defense}: "
        f"up and left is better. A large marker is the mean over draws, a small one a draw (its own victims, network "
        f"and prior), the dashed line the mean SSIM of the prior images. Every attack ran as its settings say, so "
        f"iterations differ. {INTERVAL} {'; '.join(parts)}. Attacks: {', '.join(attacks)}."
    )


def _draw_panel(axes: Axes, runs: pd.DataFrame, looks: Mapping[str, tuple[str, str]]) -> None:
    for attack, (color, marker) in looks.items():
        rows = runs[runs["attack"] == attack]
        if rows.empty:
            continue
        axes.plot(rows["seconds"], rows["ssim"], marker, color=color, alpha=0.3, markersize=3.5, zorder=2)
        seconds, mean = float(rows["seconds"].mean()), mean_over_draws(rows, "ssim")
        axes.plot(seconds, mean.value, marker, color=color, markersize=8, zorder=3)
        draw_interval(axes, seconds, mean, color=color)
    if len(runs):
        axes.axhline(runs["ssim_prior"].mean(), color=MUTED, linestyle="--", linewidth=1, zorder=1)
    axes.grid(axis="y", color=GRID)
