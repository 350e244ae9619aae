"""Identification under every defence: similarity of reconstructions, and images recognised among all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from leakpipe.figures.lines import INTERVAL, Look, Mean, mean_over_draws
from leakpipe.figures.registry import figure
from leakpipe.figures.style import GRID, INK, MUTED, Drawing, add_legend, add_title, make_key, make_panels
from leakpipe.tables.strongest import keep_largest, keep_strongest, name_attacks
from leakpipe.tables.wording import Clients, count, describe_client, order_clients, select

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

BESIDE = 0.22  # between clients under one defence, of the distance between defences


@figure(
    "identifiability",
    heading="Who is it? Similarity and recognition under every defence",
    about="Left, the SSIM that the strongest attack gains over the prior image; beside it, the share of "
    "reconstructions whose nearest image, among the training images of all clients, is the one that they came from. A "
    "tick marks what guessing recognises: a picture that is no more similar than the prior may still be recognised.",
)
def draw_identifiability(
    leakage: pd.DataFrame,
    identifiability: pd.DataFrame,
    *,
    defenses: Mapping[str, str],
    embedders: Sequence[str],
    clients: Clients,
) -> Drawing:
    """Draw similarity, and the share recognised by each embedder: a row per defence, clients side by side.

    Each point is of the attack and the captured round that got most there, by its own measure.

    Args:
        leakage: The leakage table.
        identifiability: The identifiability table.
        defenses: What to call each defence, from the top.
        embedders: Panels beside the similarity, from the left.
        clients: The `federation.clients` section of the parameters.
    """
    similar = keep_strongest(leakage, each=("client", "defense"))
    found = keep_largest(identifiability, "top1", each=("client", "defense", "embedder"))
    shares = {embedder: select(found, embedder=embedder) for embedder in embedders}
    shown, names = [name for name in defenses if name in set(similar["defense"])], order_clients(similar, clients)
    columns = 1 + len(embedders)
    drawn, panels = make_panels(2.2 + 2.3 * columns, 1.5 + 0.55 * len(shown), columns=columns, sharey=True)
    for index, client in enumerate(names):
        shift, look = BESIDE * (index - (len(names) - 1) / 2), Look.of(index)
        for place, defense in enumerate(shown):
            _draw_mean(panels[0, 0], _at(similar, client, defense), "gain", place + shift, look)
            for axes, rows in zip(panels[0, 1:], shares.values(), strict=True):
                _draw_mean(axes, _at(rows, client, defense), "top1", place + shift, look)
                _draw_chance(axes, _at(rows, client, defense), place + shift)
    for axes, title in zip(panels[0], ["SSIM gained", *(f"recognised\nby {name}" for name in embedders)], strict=True):
        axes.set_title(title, fontsize=10)
        axes.grid(axis="y", color=GRID)
    panels[0, 0].axvline(0, color=MUTED, linewidth=1, zorder=1)
    for axes in panels[0, 1:]:
        axes.set_xlim(-0.06, 1.06)
        axes.set_xticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
    panels[0, 0].set_yticks(range(len(shown)), [defenses[name] for name in shown])
    panels[0, 0].set_ylim(len(shown) - 0.5, -0.5)
    add_title(drawn, "How similar reconstructions are, and who is recognised")
    keys = [
        make_key(describe_client(name, clients[name]), Look.of(index).color, marker=Look.of(index).marker)
        for index, name in enumerate(names)
    ]
    add_legend(drawn, [*keys, make_key("by chance", INK, marker="|", markersize=9)], columns=2)
    return Drawing(drawn, _describe(similar, found, names))


def _at(rows: pd.DataFrame, client: str, defense: str) -> pd.DataFrame:
    return rows[(rows["client"] == client) & (rows["defense"] == defense)]


def _draw_mean(axes: Axes, rows: pd.DataFrame, column: str, height: float, look: Look) -> None:
    if rows.empty:
        return
    mean: Mean = mean_over_draws(rows, column)
    axes.hlines(height, mean.low, mean.high, color=look.color, linewidth=1.5, zorder=2)
    axes.plot(mean.value, height, look.marker, color=look.color, zorder=3, clip_on=False)


def _draw_chance(axes: Axes, rows: pd.DataFrame, height: float) -> None:
    """Returns what a guess recognises that counts if it hits any image of the client."""
    if len(rows):
        axes.plot(rows["chance_client"].mean(), height, "|", color=INK, markersize=9, zorder=4)


def _describe(similar: pd.DataFrame, found: pd.DataFrame, names: Sequence[str]) -> str:
    candidates = sorted(found["candidates"].unique())
    among = str(candidates[0]) if len(candidates) == 1 else f"{candidates[0]} to {candidates[-1]}"
    parts = []
    for name in names:
        rows = found[found["client"] == name]
        values = int(rows.groupby(["defense", "embedder"]).size().max())
        parts.append(f"{name}: {count(values, 'reconstruction')}, {count(rows['seed'].nunique(), 'draw')} a point")
    return (
        "Left: mean SSIM gained over the prior image; at 0 a reconstruction shows on average no more than the prior "
        f"image, which is not anonymity. Beside it: share of reconstructions whose nearest of the {among} training "
        "images of all clients is the one that they were matched to; the upright tick is chance, a guess that counts "
        "if it hits any image of the client. Each point is of the attack and captured round that got most there, "
        f"chosen by the same numbers, so a little too high by chance ({name_attacks(similar)}). {INTERVAL} Where all "
        f"draws agree it has no length, which is not certainty. {'; '.join(parts)}."
    )
