"""The effect of something: what attacks that differ in it get out of the same clients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from leakpipe.errors import LeakpipeError
from leakpipe.figures.lines import INTERVAL, Mean, draw_interval, mean_over_draws, use_log_scale
from leakpipe.figures.registry import figure
from leakpipe.figures.style import COLORS, GRID, MARKERS, MUTED, Drawing, add_legend, add_title, make_key, make_panels
from leakpipe.tables.wording import Clients, count_sample, describe_client, select

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

PRIOR: dict[str, Any] = {"linestyle": "--", "linewidth": 1, "zorder": 1}
WIDE = 10  # from this ratio of the largest to the smallest number of iterations on, their axis is logarithmic


@figure(
    "effect",
    heading="Attacks that differ in one thing",
    about="mean SSIM of the attacks that differ in it, a panel per client; the prior image is dashed.",
)
def draw_effect(leakage: pd.DataFrame, *, comparison: Mapping[str, Any], defense: str, clients: Clients) -> Drawing:
    """Draw the mean SSIM of the compared attacks, a panel per client, a dot per draw, the prior as a dashed line.

    Attacks stand in the order given; where all their labels are numbers, a line against the iterations they ran.

    Args:
        leakage: The leakage table: all captured rounds and images count, of the seeds that all compared attacks had.
        comparison: An entry of the `comparisons` section of the parameters: `title`, `attacks` (label by name),
            `clients`.
        defense: Defence whose rows are drawn.
        clients: The `federation.clients` section of the parameters.
    """
    labels, names = comparison["attacks"], comparison["clients"]
    rows = _shared_draws(select(leakage, defense=defense), list(labels), names)
    by_iterations = all(is_number(label) for label in labels.values())
    height = 3.2 if by_iterations else 1.7 + 0.4 * len(labels)
    width = max(5.6, 2.4 + 2.1 * len(names))
    drawn, panels = make_panels(width, height, columns=len(names), sharex=True, sharey=True)
    for index, (client, axes) in enumerate(zip(names, panels[0], strict=True)):
        chosen = {attack: select(rows, client=client, attack=attack) for attack in labels}
        draw = _draw_line if by_iterations else _draw_rows
        draw(axes, list(chosen.values()), list(labels.values()))
        axes.set_title(describe_client(client, clients[client]).replace(": ", ":\n"), fontsize=9)
        if by_iterations:
            axes.set_xlabel("Iterations of the attack")
            axes.set_ylabel("" if index else "SSIM to the original")
        else:
            axes.set_xlabel("SSIM to the original")
    add_legend(drawn, [make_key("prior image", MUTED, **PRIOR)], loc="outside lower right")
    add_title(drawn, fill(comparison["title"], int(10 * width)))
    return Drawing(drawn, _describe(rows, comparison, defense))


def _shared_draws(rows: pd.DataFrame, attacks: Sequence[str], clients: Sequence[str]) -> pd.DataFrame:
    """Rows of these attacks on these clients, of draws that all of the attacks had: attacks differ, victims do not."""
    kept = []
    for client in clients:
        samples = [select(rows, client=client, attack=attack) for attack in attacks]
        shared = set.intersection(*(set(sample["seed"]) for sample in samples))
        if not shared:
            raise LeakpipeError(f"attacks {', '.join(attacks)} on client {client!r} have no seed in common")
        kept += [sample[sample["seed"].isin(shared)] for sample in samples]
    import pandas as pd

    return pd.concat(kept)


def is_number(label: object) -> bool:
    """Returns whether a label is a number, or text that reads as one."""
    try:
        float(str(label))
    except ValueError:
        return False
    return True


def _describe(rows: pd.DataFrame, comparison: Mapping[str, Any], defense: str) -> str:
    attacks = ", ".join(f"“{label}” ({attack})" for attack, label in comparison["attacks"].items())
    parts = []
    for client in comparison["clients"]:
        samples = {count_sample(part, "image", "seed") for _, part in rows[rows["client"] == client].groupby("attack")}
        parts.append(f"{client}: {' or '.join(sorted(samples))}")
    return (
        f"{comparison['title']}: mean SSIM of the reconstructed images, of {attacks}, under defence {defense}, over "
        f"{count_sample(rows, 'round')}. A faint dot is the mean of one draw (its own victims, network and prior), the "
        f"large marker the mean over images, the dashed line the mean SSIM of the prior images of the same attack. "
        f"{INTERVAL} {'; '.join(parts)}."
    )


def _per_draw(rows: pd.DataFrame) -> pd.Series[float]:
    return rows.groupby("seed")["ssim"].mean()


def _draw_rows(axes: Axes, samples: Sequence[pd.DataFrame], labels: Sequence[object]) -> None:
    """One row for each attack, from the top, SSIM to the right."""
    for place, rows in enumerate(samples):
        color, marker = COLORS[place % len(COLORS)], MARKERS[place % len(MARKERS)]
        draws, mean = _per_draw(rows), mean_over_draws(rows, "ssim")
        axes.plot(draws, np.full(len(draws), place), marker, color=color, alpha=0.35, markersize=4.5, zorder=2)
        if not math.isnan(mean.low):
            axes.hlines(place, mean.low, mean.high, color=color, linewidth=1.5, zorder=3)
        axes.plot(mean.value, place, marker, color=color, markersize=8, zorder=3)
        axes.plot([rows["ssim_prior"].mean()] * 2, [place - 0.5, place + 0.5], color=MUTED, **PRIOR)
    axes.set_yticks(range(len(labels)), [fill(str(label), 26) for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_xlim(min(0.0, *(float(_per_draw(rows).min()) for rows in samples)) - 0.05, 1.05)
    axes.grid(axis="x", color=GRID)


def _draw_line(axes: Axes, samples: Sequence[pd.DataFrame], _labels: Sequence[object]) -> None:
    """SSIM against the iterations that the attacks ran."""
    means: dict[float, Mean] = {}
    priors: dict[float, float] = {}
    for rows in samples:
        draws, iterations = _per_draw(rows), float(rows["iterations"].mean())
        means[iterations], priors[iterations] = mean_over_draws(rows, "ssim"), float(rows["ssim_prior"].mean())
        axes.plot(np.full(len(draws), iterations), draws, "o", color=COLORS[1], alpha=0.3, markersize=4.5, zorder=2)
        draw_interval(axes, iterations, means[iterations], color=COLORS[1])
    places = sorted(means)
    axes.plot(places, [means[place].value for place in places], "o-", color=COLORS[1], zorder=3)
    axes.plot(places, [priors[place] for place in places], color=MUTED, **PRIOR)
    if places[0] > 0 and places[-1] >= WIDE * places[0]:
        use_log_scale(axes)
    axes.set_ylim(-0.05, 1.05)
    axes.grid(axis="y", color=GRID)
