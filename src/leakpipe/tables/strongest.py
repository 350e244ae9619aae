"""The strongest attack of each cell, whose rows a reader should see first: leakage is reported at its worst."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from leakpipe.tables.statistics import add_gain
from leakpipe.tables.wording import count

if TYPE_CHECKING:
    import pandas as pd  # slow to import, and the Snakefile reads the figures' modules on every start

RUN = ["client", "defense", "round", "attack"]
EACH_CELL = ("client", "defense", "round")
EACH_DRAW = (*EACH_CELL, "seed")


def keep_strongest(leakage: "pd.DataFrame", *, each: Sequence[str] = EACH_CELL) -> "pd.DataFrame":
    """Keeps the rows of the strongest attack at each place: the one with the largest mean gain in SSIM.

    It is chosen by the true images, so its mean is a little too high by chance: an upper bound on what an attacker
    gets who has to choose without them.

    Args:
        leakage: Rows of the leakage table.
        each: Columns that name a place; of `RUN` and `seed`, those that are not among them are chosen as well. For
            `("defense",)` that is the client that leaks most, with the worst round.

    Returns:
        The rows, in their order, with the column `gain`.
    """
    return keep_largest(add_gain(leakage), "gain", each=each)


def keep_largest(rows: "pd.DataFrame", measure: str, *, each: Sequence[str]) -> "pd.DataFrame":
    """Keeps, at each place, the rows of the run whose mean of `measure` is the largest; see `keep_strongest`."""
    columns = list(dict.fromkeys([*RUN, *each]))
    means = rows.groupby(columns, sort=False)[measure].mean()
    best = means.loc[means.groupby(list(each), sort=False).idxmax()].reset_index()[columns]
    return rows.reset_index().merge(best, on=columns).set_index("index").sort_index().rename_axis(None)


def keep_naive(leakage: "pd.DataFrame", adaptive: Collection[str]) -> "pd.DataFrame":
    """Keeps the rows of attacks that do not know the defence, of the clients and defences that one knows it of."""
    knows = leakage["attack"].isin(list(adaptive))
    places = leakage.loc[knows, ["client", "defense"]].drop_duplicates()
    return leakage[~knows].reset_index().merge(places, on=["client", "defense"]).set_index("index").rename_axis(None)


def name_attacks(rows: "pd.DataFrame") -> str:
    """`site-9: leakpipe-adapted (5 seeds); site-5: leakpipe (3 seeds)`: which attacks the rows are of."""
    parts = []
    for client, those in rows.groupby("client", sort=False):
        seeds = those.groupby("attack", sort=False)["seed"].nunique()
        named = [f"{name} ({count(int(number), 'seed')})" for name, number in seeds.items()]
        parts.append(f"{client}: {', '.join(named)}")
    return "; ".join(parts)
