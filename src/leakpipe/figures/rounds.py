"""The leak of each client, round by round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from leakpipe.figures import published
from leakpipe.figures.lines import INTERVAL, Look, draw_means, draw_published, label_ends, mark_zero
from leakpipe.figures.registry import figure
from leakpipe.figures.style import Drawing, make_panels
from leakpipe.tables.strongest import keep_strongest, name_attacks
from leakpipe.tables.wording import Clients, count_sample, describe_client, order_clients, select

if TYPE_CHECKING:
    import pandas as pd

APART = 0.012  # between the dots of two clients in one round, of the range of rounds


@figure(
    "rounds",
    heading="Leakage by round",
    about="RDLV and gain in SSIM of the strongest attack on each client in each captured round. Above 0 a "
    "reconstruction shows more of an image than the prior does: that much leaked.",
)
def draw_rounds(leakage: pd.DataFrame, *, defense: str, clients: Clients) -> Drawing:
    """Draw RDLV and the gain in SSIM against the captured rounds: a line of means per client, a faint dot per image.

    Args:
        leakage: The leakage table: of each client and captured round, the strongest attack is drawn; rows whose RDLV
            is undefined are left out.
        defense: Defence whose rows are drawn.
        clients: The `federation.clients` section of the parameters.
    """
    rows = keep_strongest(select(leakage, defense=defense)).dropna(subset=["rdlv"])
    names = order_clients(rows, clients)
    rounds = sorted(int(number) for number in rows["round"].unique())
    apart = APART * max(rounds[-1] - rounds[0], 1)
    drawn, panels = make_panels(7.2, 5.8, rows=2, sharex=True, height_ratios=[1.7, 1])
    upper, lower = panels[:, 0]
    ends, has_published = [], False
    for index, client in enumerate(names):
        look, shift = Look.of(index), apart * (index - (len(names) - 1) / 2)
        own = rows[rows["client"] == client]
        for axes, column in ((upper, "rdlv"), (lower, "gain")):
            draw_means(axes, own, column, place="round", shift=shift, label=client, look=look)
        known = _find_published(client, rounds)
        if known:
            draw_published(upper, known, shift=shift, color=look.color)
            has_published = True
        label = describe_client(client, clients[client]).replace(", ", ",\n")
        ends.append((float(own.loc[own["round"] == own["round"].max(), "rdlv"].mean()), label, look.color))
    for axes in (upper, lower):
        mark_zero(axes)
    upper.set_title("Leakage of each client, round by round")
    upper.set_ylabel("RDLV\n(relative gain over the prior)")
    lower.set_ylabel("SSIM gained\nover the prior")
    lower.set_xlabel("Round of federated averaging")
    upper.set_xticks(rounds)
    margin = 0.06 * max(rounds[-1] - rounds[0], 1)
    upper.set_xlim(rounds[0] - margin, rounds[-1] + margin)
    label_ends(upper, ends)
    return Drawing(drawn, _describe(rows, names, defense, has_published=has_published))


def _find_published(client: str, rounds: list[int]) -> Mapping[float, float]:
    known = published.RDLV_BY_ROUND.get(client, {})
    return {place: value for place, value in known.items() if place in rounds}


def _describe(rows: pd.DataFrame, names: list[str], defense: str, *, has_published: bool) -> str:
    samples = "; ".join(f"{name}: {count_sample(rows[rows['client'] == name], 'image', 'seed')}" for name in names)
    source = f" {published.SOURCE}, where it has a value for a captured round." if has_published else ""
    return (
        f"RDLV (above) and the gain in SSIM over the prior image (below) in each captured round under defence "
        f"{defense}, of the strongest attack on each client in each round ({name_attacks(rows)}). A faint dot is one "
        f"image, the line their mean; at 0 a reconstruction shows no more than the prior image. Clients stand a little "
        f"apart. {INTERVAL} {samples}.{source}"
    )
