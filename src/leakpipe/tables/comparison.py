"""Attacks side by side: what each got out of each client, and how long it took."""

import pandas as pd

from leakpipe.randomness import derive_seed
from leakpipe.tables.uncertainty import bootstrap_mean

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
