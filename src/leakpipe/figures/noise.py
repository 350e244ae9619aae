"""Leakage and accuracy against the noise multiplier σ0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from leakpipe.errors import LeakpipeError
from leakpipe.figures import published
from leakpipe.figures.lines import INTERVAL, PUBLISHED, Look, draw_means, draw_published, mark_zero
from leakpipe.figures.registry import figure
from leakpipe.figures.style import INK, MUTED, Drawing, make_key, make_panels
from leakpipe.tables.strongest import keep_naive, keep_strongest, name_attacks
from leakpipe.tables.wording import Clients, count_draws, describe_client, order_clients

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


@figure(
    "noise",
    heading="Leakage and accuracy under noise",
    about="RDLV of the strongest attack (dashed: of one that does not know the defence) and, below it, test accuracy "
    "against the noise multiplier σ0, beside the paper's values on another data set. Where a line has come down to 0, "
    "images are on average no more similar than the prior; single ones may leak, and be recognised.",
)
def draw_noise(
    leakage: pd.DataFrame,
    accuracy: pd.DataFrame,
    *,
    adaptive: Sequence[str],
    sigma0: Mapping[str, float],
    clients: Clients,
) -> Drawing:
    """Draw RDLV of each client, and below it test accuracy, against the noise multiplier, beside the published values.

    The values of σ0 stand evenly spaced: 0 and 20 fit on no common scale that shows 1 as well.

    Args:
        leakage: The leakage table: of each client, defence and captured round, all images of the strongest attack.
        accuracy: The accuracy table: the last round is drawn.
        adaptive: Attacks that know the defence; where one was run, the strongest of the others is drawn dashed.
        sigma0: Noise multiplier of each defence drawn (`noise_multipliers`).
        clients: The `federation.clients` section of the parameters.
    """
    levels = sorted(set(sigma0.values()))
    place_of = {name: levels.index(value) for name, value in sigma0.items()}
    leaks, kept = _place(keep_strongest(leakage), place_of), _place(accuracy, place_of)
    kept = kept[kept["round"] == accuracy["round"].max()]
    if leaks.empty or kept.empty:
        raise LeakpipeError(f"the tables have no rows for any of the defences {', '.join(sigma0) or '(none)'}")
    naive = _place(keep_strongest(keep_naive(leakage, adaptive)), place_of)
    drawn, panels = make_panels(7.2, 5.6, rows=2, sharex=True, height_ratios=[2.4, 1])
    upper, lower = panels[:, 0]
    _draw_leakage(upper, leaks, naive, clients, levels)
    _draw_accuracy(lower, kept, levels)
    lower.set_xticks(range(len(levels)), [f"{value:g}" if value else "0\n(no noise)" for value in levels])
    lower.set_xlim(-0.35, len(levels) - 0.65)
    lower.set_xlabel("Noise multiplier σ₀")
    return Drawing(drawn, _describe(leaks, kept, clients))


def _describe(leaks: pd.DataFrame, kept: pd.DataFrame, clients: Clients) -> str:
    return (
        "Above: RDLV of the strongest attack on each client under each noise in each captured round "
        f"({name_attacks(leaks)}) against the noise multiplier σ₀; a faint dot is one image in one captured round, the "
        "line their mean; at 0 a reconstruction shows no more than the prior image. Dashed: the strongest attack that "
        f"does not know the noise, where another does. {count_draws(leaks, clients)}. Below: test accuracy of the "
        f"global model after round {int(kept['round'].max())}; a faint dot is one seed (of {kept['seed'].nunique()}), "
        f"the line their mean. {INTERVAL} {published.SOURCE}, at those σ₀ that both have. Values of σ₀ are evenly "
        "spaced."
    )


def _place(table: pd.DataFrame, place_of: Mapping[str, int]) -> pd.DataFrame:
    """Rows that have a σ0 and, if any, an RDLV, with their place on the axis."""
    rows = table.assign(place=table["defense"].map(place_of)).dropna(subset=["place"])
    return rows.dropna(subset=["rdlv"]) if "rdlv" in rows else rows


def _draw_leakage(axes: Axes, leaks: pd.DataFrame, naive: pd.DataFrame, clients: Clients, levels: list[float]) -> None:
    names = order_clients(leaks, clients)
    handles = []
    for index, client in enumerate(names):
        shift, look = 0.09 * (index - (len(names) - 1) / 2), Look.of(index)
        label = describe_client(client, clients[client])
        draw_means(axes, leaks[leaks["client"] == client], "rdlv", place="place", shift=shift, label=label, look=look)
        handles.append(axes.lines[-1])
        without = naive[naive["client"] == client]
        if len(without):
            label, dashed = f"{client}, defence not known", Look.of(index, dashed=True)
            draw_means(axes, without, "rdlv", place="place", shift=shift + 0.05, label=label, look=dashed)
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
