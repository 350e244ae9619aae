"""What noise buys and what it costs: leakage and accuracy against σ0."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from leakpipe.errors import LeakpipeError
from leakpipe.figures.lines import Look, draw_means, mark_zero
from leakpipe.figures.selection import count, describe_client, order_clients, select
from leakpipe.figures.style import INK, in_style


@in_style
def plot_noise(
    leakage: pd.DataFrame,
    accuracy: pd.DataFrame,
    *,
    attack: str,
    sigma0: Mapping[str, float],
    clients: Mapping[str, Mapping[str, Any]],
) -> Figure:
    """Draw RDLV of each client, and below it test accuracy, against the noise multiplier.

    The values of σ0 stand evenly spaced: 0 and 20 fit on no common scale that shows 1 as well.

    Args:
        leakage: The leakage table: all captured rounds, seeds and images of `attack` are drawn.
        accuracy: The accuracy table: the last round is drawn.
        attack: Attack drawn.
        sigma0: Noise multiplier of each defence drawn (`noise_multipliers`).
        clients: The `federation.clients` section of the parameters.
    """
    leaks, kept, places = _drawn(leakage, accuracy, attack, sigma0)
    figure = Figure(figsize=(7.2, 5.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2.4, 1])
    _draw_leakage(upper, leaks, clients)
    _draw_accuracy(lower, kept)
    lower.set_xticks(range(len(places)), [f"{value:g}" if value else "0\n(no noise)" for value in places])
    lower.set_xlim(-0.35, len(places) - 0.65)
    lower.set_xlabel("Noise multiplier σ₀")
    return figure


def describe_noise(
    leakage: pd.DataFrame,
    accuracy: pd.DataFrame,
    *,
    attack: str,
    sigma0: Mapping[str, float],
    clients: Mapping[str, Mapping[str, Any]],
) -> str:
    """Say in words what `plot_noise` draws for the same arguments: the caption."""
    leaks, kept, _ = _drawn(leakage, accuracy, attack, sigma0)
    parts = []
    for client in order_clients(leaks, clients):
        rows = leaks[leaks["client"] == client]
        numbers = {"image": rows["image"].nunique(), "seed": rows["seed"].nunique(), "round": rows["round"].nunique()}
        parts.append(f"{client}: {', '.join(count(number, noun) for noun, number in numbers.items())}")
    last = int(kept["round"].max())
    return (
        f"Above: RDLV of attack {attack} against the noise multiplier σ₀; a faint dot is one image in one "
        f"captured round, the line their mean, and 0 means no more than the prior image told. {'; '.join(parts)}. "
        f"Below: test accuracy of the global model after round {last}; a faint dot is one seed "
        f"(of {kept['seed'].nunique()}), the line their mean. Values of σ₀ are evenly spaced."
    )


def _drawn(
    leakage: pd.DataFrame, accuracy: pd.DataFrame, attack: str, sigma0: Mapping[str, float]
) -> tuple[pd.DataFrame, pd.DataFrame, list[float]]:
    """Rows of both tables that have a σ0, with its place on the axis, and the values at those places."""
    places = sorted(set(sigma0.values()))
    place_of = {name: places.index(value) for name, value in sigma0.items()}
    leaks = select(leakage, attack=attack).dropna(subset=["rdlv"])
    leaks = leaks.assign(place=leaks["defense"].map(place_of)).dropna(subset=["place"])
    kept = accuracy[accuracy["round"] == accuracy["round"].max()]
    kept = kept.assign(place=kept["defense"].map(place_of)).dropna(subset=["place"])
    if leaks.empty or kept.empty:
        raise LeakpipeError(f"the tables have no rows for any of the defences {', '.join(sigma0) or '(none)'}")
    return leaks, kept, places


def _draw_leakage(axes: Axes, leaks: pd.DataFrame, clients: Mapping[str, Mapping[str, Any]]) -> None:
    names = order_clients(leaks, clients)
    for index, client in enumerate(names):
        rows = leaks[leaks["client"] == client]
        shift = 0.09 * (index - (len(names) - 1) / 2)
        label = describe_client(client, clients[client])
        draw_means(axes, rows["place"], rows["rdlv"], shift=shift, label=label, look=Look.of(index))
    mark_zero(axes)
    axes.set_title("Noise on the update: what it hides, and what it costs")
    axes.set_ylabel("RDLV\n(relative gain over the prior)")
    axes.legend(loc="best", frameon=False)


def _draw_accuracy(axes: Axes, kept: pd.DataFrame) -> None:
    draw_means(axes, kept["place"], kept["test_accuracy"], shift=0.0, label="test accuracy", look=Look(INK, marker="o"))
    for place, values in kept.groupby("place")["test_accuracy"]:
        text = f"{values.mean():.2f}"
        axes.annotate(text, (place, values.max()), (0, 6), textcoords="offset points", ha="center", fontsize=9)
    axes.set_ylabel("Test accuracy\n(mean of seeds)")
    axes.margins(y=0.3)
