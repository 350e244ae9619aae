"""Leakage of each client, beside what it holds and how it trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from leakpipe.client.batches import count_local_steps
from leakpipe.figures.lines import INTERVAL, Look, draw_means, mark_zero
from leakpipe.figures.registry import figure
from leakpipe.figures.style import Drawing, add_title, make_panels
from leakpipe.tables.strongest import keep_strongest, name_attacks
from leakpipe.tables.wording import Clients, count, count_draws, order_clients, select

if TYPE_CHECKING:
    import pandas as pd

MEASURES = {"gain": "SSIM gained\nover the prior", "rdlv": "RDLV\n(relative gain)"}


@figure(
    "clients",
    heading="Leakage of each client",
    about="What the strongest attack gets of each client; below, its images, its batch size and its local steps in a "
    "round.",
)
def draw_clients(leakage: pd.DataFrame, *, defense: str, local_epochs: int, clients: Clients) -> Drawing:
    """Draw mean gain in SSIM, and RDLV, of each client, those with the fewest images first.

    Args:
        leakage: The leakage table: of each client and captured round, all images of the strongest attack are drawn, but
            those whose RDLV is undefined.
        defense: Defence whose rows are drawn.
        local_epochs: Passes over its images of a client that has no number of its own.
        clients: The `federation.clients` section of the parameters.
    """
    rows = keep_strongest(select(leakage, defense=defense)).dropna(subset=["rdlv"])
    names = order_clients(rows, clients)
    drawn, panels = make_panels(max(5.0, 1.4 + 1.1 * len(names)), 4.8, len(MEASURES), sharex=True)
    for (measure, label), axes in zip(MEASURES.items(), panels[:, 0], strict=True):
        for place, client in enumerate(names):
            placed = rows[rows["client"] == client].assign(place=place)
            draw_means(axes, placed, measure, place="place", shift=0.0, label=client, look=Look.of(place))
        mark_zero(axes)
        axes.set_ylabel(label)
    texts = [_write_training(name, describe_training(clients[name], local_epochs=local_epochs)) for name in names]
    axes.set_xticks(range(len(names)), texts, fontsize=9)
    axes.set_xlim(-0.5, len(names) - 0.5)
    add_title(drawn, "Leakage of each client")
    caption = (
        f"Leakage of each client to the strongest attack on it in each captured round ({name_attacks(rows)}) under "
        f"defence {defense}: SSIM gained over the prior image (above) and RDLV (below). A faint dot is one image in "
        "one captured round, the large marker their mean; at 0 a reconstruction shows no more than the prior image. "
        f"{INTERVAL} {count_draws(rows, clients)}. Clients differ in more than one property, so the figure does not "
        "say which of them matters: pairs that differ in one thing are judged as claims."
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


def _write_training(name: str, training: Mapping[str, int]) -> str:
    images, steps = count(training["images"], "image"), count(training["steps"], "step")
    return f"{name}\n{images}\nbatch {training['batch_size']}\n{steps}"
