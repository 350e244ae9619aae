"""Which training image a reconstruction came from: hits against the number of images and the batch size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from leakpipe.figures.registry import figure
from leakpipe.figures.style import (
    COLORS,
    FAINT,
    GRID,
    MUTED,
    Drawing,
    add_legend,
    add_title,
    make_key,
    make_panels,
    mark_percent,
)
from leakpipe.randomness import derive_seed
from leakpipe.tables.statistics import bootstrap_mean
from leakpipe.tables.wording import Clients, count, describe_client, order_clients, select

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

CHANCE_WIDTH = 0.36  # half the width of a client's band of chance, of the distance between clients


@figure(
    "identifiability",
    heading="Which image it is",
    about="Share of reconstructions whose nearest image, among the training images of all clients, is the one that "
    "they came from; hollow for the prior image, a gray band for chance.",
)
def draw_identifiability(
    identifiability: pd.DataFrame, *, attack: str, defense: str, embedders: Sequence[str], clients: Clients
) -> Drawing:
    """Draw the share of reconstructions whose nearest image is their own: a panel per embedder, clients side by side.

    Args:
        identifiability: The identifiability table: all captured rounds, seeds and images are drawn.
        attack: Attack drawn.
        defense: Defence whose rows are drawn.
        embedders: Panels, from the left.
        clients: The `federation.clients` section of the parameters.
    """
    rows = select(identifiability, attack=attack, defense=defense)
    names = _by_size(rows, clients)
    width = max(6.4, 1.0 + 0.95 * len(names) * len(embedders))
    drawn, panels = make_panels(width, 3.9, columns=len(embedders), sharey=True)
    for axes, embedder in zip(panels[0], embedders, strict=True):
        shares = [_share(rows, embedder, client) for client in names]
        _draw_panel(axes, shares)
        axes.set_title(f"by {embedder}", fontsize=10)
        axes.set_xticks(range(len(names)), [_tick(client, clients[client]) for client in names], fontsize=9)
        axes.set_xlim(-0.6, len(names) - 0.4)
    panels[0, 0].set_ylim(-0.04, 1.1)
    mark_percent(panels[0, 0])
    panels[0, 0].set_ylabel("Recognised (IIP, top 1)")
    add_title(drawn, "How many reconstructions say which image they came from")
    add_legend(drawn, _list_keys(attack), columns=3)
    return Drawing(drawn, _describe(rows, attack=attack, defense=defense, embedders=embedders, clients=clients))


@dataclass(frozen=True)
class _Share:
    """What one embedder recognises of one client: means, their interval over draws, how many they are over."""

    found: float
    low: float
    high: float
    prior: float
    chance: tuple[float, float]
    values: int
    draws: int


def _share(rows: pd.DataFrame, embedder: str, client: str) -> _Share:
    chosen = select(rows, embedder=embedder, client=client)
    seed = derive_seed("identifiability interval", embedder, client)
    low, high = bootstrap_mean(chosen["top1"], clusters=chosen["seed"], seed=seed)
    return _Share(
        found=float(chosen["top1"].mean()),
        low=low,
        high=high,
        prior=float(chosen["top1_prior"].mean()),
        chance=(float(chosen["chance"].mean()), float(chosen["chance_client"].mean())),
        values=len(chosen),
        draws=chosen["seed"].nunique(),
    )


def _describe(rows: pd.DataFrame, *, attack: str, defense: str, embedders: Sequence[str], clients: Clients) -> str:
    parts = []
    for client in _by_size(rows, clients):
        share = _share(rows, embedders[0], client)
        parts.append(
            f"{describe_client(client, clients[client])}: {share.values} reconstructions, {count(share.draws, 'draw')}"
        )
    candidates = sorted(rows["candidates"].unique())
    among = str(candidates[0]) if len(candidates) == 1 else f"{candidates[0]} to {candidates[-1]}"
    return (
        f"Share of the reconstructions of attack {attack} under defence {defense}, all captured rounds together, whose "
        f"nearest of the {among} training images of all clients is the one that they were matched to, as "
        f"{' and '.join(embedders)} measure nearness. Bars are 95 % bootstrap intervals over draws, from 3 draws on; "
        f"where all draws agree they have no length, which is not certainty. Hollow: the same of the prior image, so "
        f"without an attack. The gray band is chance: from a guess among all images to a guess that counts if it hits "
        f"any of the client's. {'; '.join(parts)}."
    )


def _by_size(rows: pd.DataFrame, clients: Clients) -> list[str]:
    """Clients with the fewest images first, among these the smallest batch, then by name."""
    names = order_clients(rows, clients)
    return sorted(names, key=lambda name: (int(clients[name]["images"]), int(clients[name]["batch_size"]), name))


def _tick(name: str, client: Mapping[str, Any]) -> str:
    return describe_client(name, client).replace(": ", "\n").replace(", ", "\n")


def _draw_panel(axes: Axes, shares: Sequence[_Share]) -> None:
    for place, share in enumerate(shares):
        low, high = share.chance
        band = [place - CHANCE_WIDTH, place + CHANCE_WIDTH]
        axes.fill_between(band, low, max(high, low + 0.006), color=FAINT, linewidth=0, zorder=1)
        axes.plot(place + 0.14, share.prior, "s", color=MUTED, markerfacecolor="white", zorder=2, clip_on=False)
        axes.vlines(place - 0.14, share.low, share.high, color=COLORS[0], linewidth=2, zorder=3)
        axes.plot(place - 0.14, share.found, "o", color=COLORS[0], markersize=8, zorder=4, clip_on=False)
        where, text = (place - 0.14, share.found), f"{100 * share.found:.0f} %"
        axes.annotate(text, where, xytext=(7, 5), textcoords="offset points", fontsize=9)
    axes.grid(axis="y", color=GRID)
    axes.set_axisbelow(True)


def _list_keys(attack: str) -> list[Artist]:
    from matplotlib.patches import Patch

    return [
        make_key(f"attack {attack}, 95 % interval", COLORS[0], marker="o", markersize=8, linestyle="-"),
        make_key("prior image, no attack", MUTED, marker="s", hollow=True),
        Patch(color=FAINT, label="chance"),
    ]
