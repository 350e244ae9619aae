"""The yield of each attack from each client: a row per client, a panel per captured round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from leakpipe.figures.lines import INTERVAL, Look, mean_over_draws
from leakpipe.figures.registry import figure
from leakpipe.figures.style import FAINT, GRID, MUTED, Drawing, add_legend, make_key, make_panels
from leakpipe.tables.wording import Clients, count_draws, describe_client, select

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


@figure(
    "attacks-by-client",
    heading="Attacks on each client",
    about="Mean SSIM of the reconstructed images by attack, a row per client and a panel per captured round; further "
    "right is more of the image.",
)
def draw_attacks_by_client(leakage: pd.DataFrame, *, attacks: Sequence[str], defense: str, clients: Clients) -> Drawing:
    """Draw the mean SSIM of each attack in the client's row, its draws as faint dots, the prior as an upright tick.

    Args:
        leakage: The leakage table.
        attacks: In the order of the legend; those after the first are hollow.
        defense: Defence whose rows are drawn.
        clients: The `federation.clients` section of the parameters, in the order of the rows.
    """
    rows = select(leakage, defense=defense)
    names = [name for name in clients if name in set(rows["client"])]
    rounds = sorted(rows["round"].unique())
    present = [attack for attack in attacks if attack in set(rows["attack"])]
    looks = {attack: Look.of(place, dashed=place > 0) for place, attack in enumerate(present)}
    drawn, panels = make_panels(
        3.4 + 2.6 * len(rounds), 1.3 + 0.3 * len(names), 1, len(rounds), sharex=True, sharey=True
    )
    for captured, axes in zip(rounds, panels[0], strict=True):
        for place, client in enumerate(names):
            _draw_row(axes, rows[(rows["client"] == client) & (rows["round"] == captured)], place, looks)
        axes.set(title=f"Round {captured}", xlabel="SSIM, 1 is the image itself")
        axes.grid(axis="x", color=GRID)
    panels[0, 0].set_yticks(range(len(names)), [describe_client(name, clients[name]) for name in names])
    panels[0, 0].set_ylim(len(names) - 0.5, -0.5)
    panels[0, 0].set_xlim(min(-0.02, float(rows["ssim"].min()) - 0.05), 1.03)
    keys = [make_key(name, look.color, marker=look.marker, hollow=look.dashed) for name, look in looks.items()]
    add_legend(drawn, [*keys, make_key("prior image", MUTED, marker="|", markersize=10)], columns=len(keys) + 1)
    caption = (
        f"SSIM of reconstructed images by client and attack under defence {defense}, a panel per captured round: a "
        "faint dot is one image, a large marker the mean of an attack, an upright tick that of the prior image, which "
        f"the attacker has without the update. {INTERVAL.replace('A bar', 'A bar along the row')} Attacks: "
        f"{', '.join(present)}. {count_draws(rows, clients)}."
    )
    return Drawing(drawn, caption)


def _draw_row(axes: Axes, rows: pd.DataFrame, place: int, looks: Mapping[str, Look]) -> None:
    if rows.empty:
        return
    means = {}
    for attack, look in looks.items():
        values = rows[rows["attack"] == attack]
        if values.empty:
            continue
        fill = "white" if look.dashed else look.color
        axes.plot(
            values["ssim"], [place] * len(values), look.marker, color=look.color, alpha=0.3, markersize=3, zorder=2
        )
        mean = means[attack] = mean_over_draws(values, "ssim")
        axes.hlines(place, mean.low, mean.high, color=look.color, linewidth=1.5, zorder=2.5)
        order = 3 if look.dashed else 4  # what nearly agrees stays visible: filled markers over hollow ones
        axes.plot(mean.value, place, look.marker, color=look.color, markerfacecolor=fill, markersize=7, zorder=order)
    ends = [mean.value for mean in means.values()]
    axes.hlines(place, min(ends), max(ends), color=FAINT, linewidth=1, zorder=1)
    axes.plot(rows["ssim_prior"].mean(), place, "|", color=MUTED, markersize=10, zorder=1.5)
