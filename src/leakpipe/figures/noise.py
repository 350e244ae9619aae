"""Leakage and accuracy against the noise multiplier σ0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from leakpipe.errors import LeakpipeError
from leakpipe.figures import published
from leakpipe.figures.lines import INTERVAL, PUBLISHED, Look, draw_means, draw_published, mark_zero
from leakpipe.figures.registry import figure
from leakpipe.figures.style import INK, MUTED, Drawing, make_key, make_panels
from leakpipe.tables.wording import Clients, count_draws, describe_client, order_clients, select

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


@figure(
    "noise",
    heading="Leakage and accuracy under noise",
    about="RDLV and, below it, test accuracy against the noise multiplier σ0, beside the paper's values on another "
    "data set. Where a line has come down to 0, images are on average no more "
    "similar than the prior; single ones may leak, and be recognised.",
)
def draw_noise(
    leakage: pd.DataFrame, accuracy: pd.DataFrame, *, attack: str, sigma0: Mapping[str, float], clients: Clients
) -> Drawing:
    """Draw RDLV of each client, and below it test accuracy, against the noise multiplier, beside the published values.

    The values of σ0 stand evenly spaced: 0 and 20 fit on no common scale that shows 1 as well.

    Args:
        leakage: The leakage table: all captured rounds, seeds and images of `attack` are drawn.
        accuracy: The accuracy table: the last round is drawn.
        attack: Attack drawn.
        sigma0: Noise multiplier of each defence drawn (`noise_multipliers`).
        clients: The `federation.clients` section of the parameters.
    """
    levels = sorted(set(sigma0.values()))
    leaks, kept = _place(leakage, accuracy, attack, {name: levels.index(value) for name, value in sigma0.items()})
    drawn, panels = make_panels(7.2, 5.6, rows=2, sharex=True, height_ratios=[2.4, 1])
    upper, lower = panels[:, 0]
    _draw_leakage(upper, leaks, clients, levels)
    _draw_accuracy(lower, kept, levels)
    lower.set_xticks(range(len(levels)), [f"{value:g}" if value else "0\n(no noise)" for value in levels])
    lower.set_xlim(-0.35, len(levels) - 0.65)
    lower.set_xlabel("Noise multiplier σ₀")
    return Drawing(drawn, _describe(leaks, kept, attack, clients))


def _describe(leaks: pd.DataFrame, kept: pd.DataFrame, attack: str, clients: Clients) -> str:
    return (
        f"Above: RDLV of attack {attack} against the noise multiplier σ₀; a faint dot is one image in one "
        f"captured round, the line their mean; at 0 a reconstruction shows no more than the prior image. "
        f"{count_draws(leaks, clients)}. Below: test accuracy of the global model after round "
        f"{int(kept['round'].max())}; a faint dot is one seed (of {kept['seed'].nunique()}), the line their mean. "
        f"{INTERVAL} {published.SOURCE}, at those σ₀ that both have. Values of σ₀ are evenly spaced."
    )


def _place(
    leakage: pd.DataFrame, accuracy: pd.DataFrame, attack: str, place_of: Mapping[str, int]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of both tables that have a σ0, with its place on the axis."""
    leaks = select(leakage, attack=attack).dropna(subset=["rdlv"])
    leaks = leaks.assign(place=leaks["defense"].map(place_of)).dropna(subset=["place"])
    kept = accuracy[accuracy["round"] == accuracy["round"].max()]
    kept = kept.assign(place=kept["defense"].map(place_of)).dropna(subset=["place"])
    if leaks.empty or kept.empty:
        raise LeakpipeError(f"the tables have no rows for any of the defences {', '.join(place_of) or '(none)'}")
    return leaks, kept


def _draw_leakage(axes: Axes, leaks: pd.DataFrame, clients: Clients, levels: list[float]) -> None:
    names = order_clients(leaks, clients)
    handles = []
    for index, client in enumerate(names):
        shift, look = 0.09 * (index - (len(names) - 1) / 2), Look.of(index)
        label = describe_client(client, clients[client])
        draw_means(axes, leaks[leaks["client"] == client], "rdlv", place="place", shift=shift, label=label, look=look)
        handles.append(axes.lines[-1])
        known = _at(levels, published.RDLV_BY_NOISE.get(client, {}))
        draw_published(axes, known, shift=shift, color=look.color)
    mark_zero(axes)
    axes.set_title("Noise on the update: leakage and accuracy")
    axes.set_ylabel("RDLV\n(relative gain over the prior)")
    handles.append(make_key(published.LABEL, MUTED, **PUBLISHED))
    axes.legend(handles=handles, loc="best", frameon=False)


def _draw_accuracy(axes: Axes, kept: pd.DataFrame, levels: list[float]) -> None:
    look = Look(INK, marker="o")
    draw_means(axes, kept, "test_accuracy", place="place", shift=0.0, label="test accuracy", look=look)
    draw_published(axes, _at(levels, published.ACCURACY_BY_NOISE), shift=0.0, color=MUTED)
    for place, values in kept.groupby("place")["test_accuracy"]:
        text = f"{values.mean():.2f}"
        axes.annotate(text, (place, values.max()), (0, 6), textcoords="offset points", ha="center", fontsize=9)
    axes.set_ylabel("Test accuracy\n(mean of seeds)")
    axes.margins(y=0.3)


def _at(levels: list[float], values: Mapping[float, float]) -> dict[float, float]:
    """Place on the axis → published value, for those σ0 that are on it."""
    return {levels.index(level): value for level, value in values.items() if level in levels}
