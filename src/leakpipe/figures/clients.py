"""Leakage against what clients hold and how they train: images, batch size, local steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from leakpipe.client.batches import count_local_steps
from leakpipe.figures.lines import INTERVAL, Look, draw_means, mark_zero
from leakpipe.figures.registry import figure
from leakpipe.figures.style import Drawing, add_legend, add_title, make_panels
from leakpipe.tables.statistics import add_gain
from leakpipe.tables.wording import Clients, count_draws, describe_client, order_clients, select

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

PROPERTIES = {
    "images": "training images of the client",
    "batch_size": "images in a batch",
    "steps": "local steps in a round",
}
MEASURES = {"gain": "SSIM gained\nover the prior", "rdlv": "RDLV\n(relative gain)"}


@figure(
    "clients",
    heading="Leakage by images, batch size and local steps",
    about="Leakage of each client against the number of its images, its batch size and its local steps in a round.",
)
def draw_clients(leakage: pd.DataFrame, *, attack: str, defense: str, local_epochs: int, clients: Clients) -> Drawing:
    """Draw mean gain in SSIM, and RDLV, of each client against three of its properties.

    Values of a property stand evenly spaced. Every client stands in all panels.

    Args:
        leakage: The leakage table: all captured rounds, seeds and images of `attack` are drawn, but those whose RDLV
            is undefined.
        attack: Attack drawn.
        defense: Defence whose rows are drawn.
        local_epochs: Passes over its images of a client that has no number of its own.
        clients: The `federation.clients` section of the parameters.
    """
    rows = add_gain(select(leakage, attack=attack, defense=defense).dropna(subset=["rdlv"]))
    names = order_clients(rows, clients)
    properties = {name: describe_training(clients[name], local_epochs=local_epochs) for name in names}
    drawn, panels = make_panels(7.2, 4.8, len(MEASURES), len(PROPERTIES), sharex="col", sharey="row")
    for (measure, label), row in zip(MEASURES.items(), panels, strict=True):
        for (name, text), axes in zip(PROPERTIES.items(), row, strict=True):
            _draw_panel(axes, rows, measure, {client: properties[client][name] for client in names}, clients)
            mark_zero(axes)
            axes.set_xlabel(text if measure == "rdlv" else "")
        row[0].set_ylabel(label)
    add_title(drawn, "Leakage by images, batch size and local steps")
    handles = [line for line in panels[0, 0].lines if not line.get_label().startswith("_")]
    add_legend(drawn, handles, columns=min(3, len(names)))
    caption = (
        f"Leakage of each client by attack {attack} under defence {defense}: SSIM gained over the prior image (above) "
        f"and RDLV (below), against the number of its training images, its batch size and its local steps in a round. "
        f"A faint dot is one image in one captured round, the large marker their mean; at 0 a reconstruction shows "
        f"no more than the prior image. {INTERVAL} {count_draws(rows, clients)}. Every client stands in all panels, "
        f"and clients differ in more than one property: a panel alone does not say which of them matters."
    )
    return Drawing(drawn, caption)


def describe_training(client: Mapping[str, Any], *, local_epochs: int) -> dict[str, int]:
    """`images`, `batch_size`, and `steps`: how many times the client changes its weights in a round.

    Args:
        client: Its entry in the `federation.clients` section.
        local_epochs: Passes over its images where it has no number of its own.
    """
    images, batch_size = int(client["images"]), int(client["batch_size"])
    epochs = client.get("local_epochs") or local_epochs
    return {"images": images, "batch_size": batch_size, "steps": count_local_steps(images, batch_size, epochs)}


def _draw_panel(axes: Axes, rows: pd.DataFrame, measure: str, value_of: Mapping[str, int], clients: Clients) -> None:
    """One measure against one property, whose value each client has."""
    values = sorted(set(value_of.values()))
    for index, (client, value) in enumerate(value_of.items()):
        beside = [name for name in value_of if value_of[name] == value]
        shift = 0.16 * (beside.index(client) - (len(beside) - 1) / 2)
        placed = rows[rows["client"] == client].assign(place=values.index(value))
        label = describe_client(client, clients[client])
        draw_means(axes, placed, measure, place="place", shift=shift, label=label, look=Look.of(index))
    axes.set_xticks(range(len(values)), [str(value) for value in values])
    axes.set_xlim(-0.5, len(values) - 0.5)
