"""Attacks, clients and defences side by side: means with intervals, and differences within draws."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import product
from typing import Any

import pandas as pd

from leakpipe.randomness import derive_seed
from leakpipe.tables.statistics import add_gain, bootstrap_mean, compare_draws, draw_means, holm
from leakpipe.tables.table import KEY

COMPARED_BY = ["attack", "client", "round"]
COMPARISON_COLUMNS = [
    *COMPARED_BY,
    "draws",
    "images",
    "ssim",
    "ssim_low",
    "ssim_high",
    "ssim_prior",
    "ssim_affine",
    "psnr",
    "label_accuracy",
    "iterations",
    "seconds",
]


def per_attack_run(leakage: pd.DataFrame) -> pd.DataFrame:
    """Means over the images of each attack that was run: one row per (attack, client, round, seed)."""
    keys = [*COMPARED_BY, "seed"]
    measures = ["ssim", "ssim_prior", "psnr", "label_accuracy", "iterations", "seconds"]
    runs = leakage.groupby(keys, sort=False)[measures].mean()
    return runs.assign(images=leakage.groupby(keys, sort=False).size()).reset_index()


def compare_attacks(leakage: pd.DataFrame) -> pd.DataFrame:
    """Means over all draws, in the order in which attacks, clients and rounds first stand in `leakage`.

    Args:
        leakage: Rows of the leakage table, of one defence.

    Returns:
        `COMPARISON_COLUMNS`: `draws` is the number of seeds, `images` that of values that the means of `ssim`,
        `ssim_prior`, `ssim_affine` and `psnr` are over; `ssim_low` to `ssim_high` is the 95 % interval of the mean
        SSIM over draws (`bootstrap_mean`), NaN for fewer than three; `seconds` is the mean wall time of one attack on
        one client.
    """
    runs = per_attack_run(leakage)
    grouped = runs.groupby(COMPARED_BY, sort=False)
    means = grouped[["label_accuracy", "iterations", "seconds"]].mean()
    images = leakage.groupby(COMPARED_BY, sort=False)[["ssim", "ssim_prior", "ssim_affine", "psnr"]].mean()
    table = means.join([images, _ssim_intervals(leakage)]).assign(draws=grouped.size(), images=grouped["images"].sum())
    return table.reset_index()[COMPARISON_COLUMNS]


def _ssim_intervals(leakage: pd.DataFrame) -> pd.DataFrame:
    intervals = {
        cell: bootstrap_mean(rows["ssim"], clusters=rows["seed"], seed=derive_seed("ssim interval", *cell))
        for cell, rows in leakage.groupby(COMPARED_BY, sort=False)
    }
    return pd.DataFrame(
        list(intervals.values()),
        columns=["ssim_low", "ssim_high"],
        index=pd.MultiIndex.from_tuples(intervals, names=COMPARED_BY),
    )


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


def client_rdlv(leakage: pd.DataFrame) -> pd.DataFrame:
    """RDLV of each attacked client in each captured round: the largest (as the paper gives it) and the mean.

    Args:
        leakage: Rows of the leakage table.

    Returns:
        One row per attack, in the order of its first row: the columns that name it (`table.KEY`), `images`,
        `rdlv_images` (those that have an RDLV), `rdlv_max` and `rdlv_mean` over these, NaN where there is none.
    """
    by_attack = leakage.groupby(KEY, sort=False)
    return by_attack.agg(
        images=("rdlv", "size"), rdlv_images=("rdlv", "count"), rdlv_max=("rdlv", "max"), rdlv_mean=("rdlv", "mean")
    ).reset_index()
