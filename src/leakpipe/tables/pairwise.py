"""Paired comparisons as a table: attacks, clients and defences, each with the first of its kind."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import product
from typing import Any

import pandas as pd

from leakpipe.randomness import derive_seed
from leakpipe.tables.gain import add_gain
from leakpipe.tables.paired import compare_draws, draw_means, holm

MEASURES = {  # what is compared: clients have other victims, so other priors
    "attack": "ssim",
    "client": "ssim_gain",
    "defense": "ssim",
}
PLACE = list(MEASURES)
PAIR_COLUMNS = [
    "compared",
    *PLACE,
    "against",
    "measure",
    "draws",
    "difference",
    "low",
    "high",
    "p",
    "p_holm",
]


def compare_pairs(leakage: pd.DataFrame, orders: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Compare the first attack with each other one on the same client and defence; so too clients, and defences.

    Means over the images and captured rounds of a draw are compared draw by draw (`compare_draws`). A family of
    Holm's correction is what one reader looks at together: all comparisons of one kind at one place, for instance of
    all attacks on one client under one defence.

    Args:
        leakage: The leakage table.
        orders: Names of "attack", "client" and "defense"; the first of each that the table holds is compared with
            the others, where it was run.

    Returns:
        `PAIR_COLUMNS`, in the order of `orders`. `attack`, `client` and `defense` name the first condition; the
        second differs from it in what `compared` says, which `against` names. `difference` is first minus second.
    """
    rows = add_gain(leakage).rename(columns={"gain": "ssim_gain"})
    present = {kind: [name for name in orders[kind] if name in set(rows[kind])] for kind in PLACE}
    groups = dict(iter(rows.groupby(PLACE)))
    table = [
        row
        for kind in PLACE
        for place in product(*([present[other][0]] if other == kind else present[other] for other in PLACE))
        for row in _compare_family(groups, kind, place, present[kind][1:])
    ]
    return pd.DataFrame(table, columns=PAIR_COLUMNS)


def _compare_family(
    groups: Mapping[Any, pd.DataFrame], kind: str, place: tuple[str, ...], others: Sequence[str]
) -> list[dict[str, Any]]:
    """All comparisons of one kind at one place; none if the first condition was not run there."""
    if place not in groups:
        return []
    measure, first = MEASURES[kind], draw_means(groups[place], MEASURES[kind])
    family = []
    for other in others:
        second = groups.get(tuple(other if name == kind else at for name, at in zip(PLACE, place, strict=True)))
        if second is None:
            continue
        values = draw_means(second, measure)
        if first.index.intersection(values.index).empty:
            continue
        found = compare_draws(first, values, seed=derive_seed("comparison", kind, *place, other))
        named = dict(zip(PLACE, place, strict=True))
        family.append({"compared": kind, **named, "against": other, "measure": measure, **asdict(found)})
    corrected = holm([row["p"] for row in family])
    return [{**row, "p_holm": p} for row, p in zip(family, corrected, strict=True)]
