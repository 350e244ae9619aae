"""What theory promises against what the attack achieves: recognised images under defences that have an ε."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from leakpipe.errors import LeakpipeError
from leakpipe.figures.lines import use_log_scale
from leakpipe.figures.style import COLORS, FAINT, MARKERS, MUTED, Drawing, in_style
from leakpipe.tables.robustness import bound_curve
from leakpipe.tables.wording import count, describe_client


@in_style
def draw_bound(
    table: pd.DataFrame,
    *,
    client: str,
    delta: float,
    embedder: str,
    names: Mapping[str, str],
    clients: Mapping[str, Mapping[str, Any]],
) -> Drawing:
    """Draw the bound against ε, and below it the share of recognised images of each defence and round.

    Args:
        table: `leakpipe.tables.robustness.compare_with_bounds`.
        client: Attacked client.
        delta: δ of ε.
        embedder: What measured nearness.
        names: What to call each defence.
        clients: The `federation.clients` section of the parameters.
    """
    if table.empty:
        raise LeakpipeError("figure 'bound' needs a defence with a bound (dp-gaussian, dp-sgd) that was attacked")
    kappa = float(table["prior_success"].iloc[0])
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    epsilons = np.geomspace(table["epsilon"].min() / 2, table["epsilon"].max() * 2, 80)
    bounds = bound_curve(list(epsilons), delta=delta, prior_success=kappa)
    axes.fill_between(epsilons, bounds, 1.05, color=FAINT, alpha=0.5, linewidth=0, zorder=0)
    axes.plot(epsilons, bounds, color=MUTED, label="no attack can do better (bound)")
    axes.axhline(kappa, color=MUTED, linestyle="--", linewidth=1, label=f"guess without it ({100 * kappa:.0f} %)")
    for index, (number, rows) in enumerate(table.groupby("round", sort=True)):
        color, marker = COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)]
        axes.vlines(rows["epsilon"], rows["identified_low"], rows["identified_high"], color=color, linewidth=1.5)
        axes.plot(
            rows["epsilon"], rows["identified"], marker, color=color, label=f"recognised, round {number}", zorder=3
        )
    use_log_scale(axes)
    axes.set_ylim(-0.03, 1.05)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.set_xlabel(f"ε at δ = {delta:g}, of all releases up to the attacked round (smaller is more private)")
    axes.set_ylabel("Images recognised")
    axes.set_title(f"What privacy promises and what attacks achieve: {describe_client(client, clients[client])}")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    places = "; ".join(
        f"{names[str(name)]}: ε = {', '.join(f'{value:.3g}' for value in rows['epsilon'])}"
        for name, rows in table.groupby("defense", sort=False)
    )
    draws, values = int(table["draws"].min()), int(table["reconstructions"].min())
    caption = (
        f"Share of reconstructions of {client} whose nearest image, by {embedder}, among all clients' images is the "
        f"right one, of the attack that recognises most, below the most that any attack can reach on average over "
        f"images and noise (reconstruction robustness: Balle 2022, Hayes 2023) if a guess among the images of its "
        f"class is right in {100 * kappa:.1f} % of cases. A point above the line would be chance: few draws stand "
        f"behind it. {places}. A bar is the 95 % interval over draws, by bootstrap of whole draws, from 3 draws on; "
        f"where all draws agree it has no length. n: from {count(draws, 'draw')}, {count(values, 'reconstruction')} "
        f"a point."
    )
    return Drawing(figure, caption)
