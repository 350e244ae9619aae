"""Theory beside practice: recognised images under defences that have an ε."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from leakpipe.errors import LeakpipeError
from leakpipe.figures.lines import use_log_scale
from leakpipe.figures.registry import figure
from leakpipe.figures.style import COLORS, FAINT, MARKERS, MUTED, Drawing, add_legend, make_panels, mark_percent
from leakpipe.tables.wording import Clients, count, describe_client

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from leakpipe.data.images import LabeledImages
    from leakpipe.data.partition import Split


@figure(
    "bound",
    heading="What privacy promises",
    about="Share of recognised images under defences with differential privacy, against ε, below the most that any "
    "attack can reach.",
)
def draw_bound(
    identifiability: pd.DataFrame,
    privacy: pd.DataFrame,
    dataset: LabeledImages,
    splits: Mapping[int, Split],
    *,
    client: str,
    attacks: Sequence[str],
    embedders: Sequence[str],
    delta: float,
    defenses: Mapping[str, str],
    clients: Clients,
) -> Drawing:
    """Draw the bound against ε, and below it the share of recognised images of each defence and round.

    Args:
        identifiability: The identifiability table.
        privacy: The table of guarantees.
        dataset: The data set, whose labels say what a guess could be.
        splits: The split of every seed.
        client: Attacked client.
        attacks: Attacks that count: of these, the one that recognises most is drawn.
        embedders: What measured nearness; the first is drawn.
        delta: δ of ε.
        defenses: What to call each defence.
        clients: The `federation.clients` section of the parameters.
    """
    from leakpipe.tables.robustness import class_chance, compare_with_bounds

    table = compare_with_bounds(
        identifiability,
        privacy,
        client=client,
        embedder=embedders[0],
        prior_success=max(class_chance(dataset.labels, split.clients, client) for split in splits.values()),
        attacks=attacks,
    )
    if table.empty:
        raise LeakpipeError("figure 'bound' needs a defence with a bound (dp-gaussian, dp-sgd) that was attacked")
    described = describe_client(client, clients[client])
    drawn = _draw_under_bound(table, delta, f"What privacy promises and what attacks achieve: {described}")
    return Drawing(drawn, _describe(table, embedders[0], defenses, client))


def _draw_under_bound(table: pd.DataFrame, delta: float, title: str) -> Figure:
    """Draw what `compare_with_bounds` found."""
    from leakpipe.tables.robustness import bound_curve

    kappa = float(table["prior_success"].iloc[0])
    drawn, panels = make_panels(7.2, 4.4)
    axes = panels[0, 0]
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
    mark_percent(axes)
    axes.set_xlabel(f"ε at δ = {delta:g}, of all releases up to the attacked round (smaller is more private)")
    axes.set_ylabel("Images recognised")
    axes.set_title(title)
    add_legend(drawn, axes.get_legend_handles_labels()[0], columns=2)
    return drawn


def _describe(table: pd.DataFrame, embedder: str, names: Mapping[str, str], client: str) -> str:
    places = "; ".join(
        f"{names[str(name)]}: ε = {', '.join(f'{value:.3g}' for value in rows['epsilon'])}"
        for name, rows in table.groupby("defense", sort=False)
    )
    draws, values = int(table["draws"].min()), int(table["reconstructions"].min())
    return (
        f"Share of reconstructions of {client} whose nearest image, by {embedder}, among all clients' images is the "
        f"right one, of the attack that recognises most, below the most that any attack can reach on average over "
        f"images and noise (reconstruction robustness: Balle 2022, Hayes 2023) if a guess among the images of its "
        f"class is right in {100 * table['prior_success'].iloc[0]:.1f} % of cases. A point above the line would be "
        f"chance: few draws stand behind it. {places}. A bar is the 95 % interval over draws, by bootstrap of whole "
        f"draws, from 3 draws on; where all draws agree it has no length. n: from {count(draws, 'draw')}, "
        f"{count(values, 'reconstruction')} a point."
    )
