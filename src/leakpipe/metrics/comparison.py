"""Attacks side by side: what each got out of each client, and how long it took."""

import pandas as pd

COMPARED_BY = ["attack", "client", "round"]
COMPARISON_COLUMNS = [
    *COMPARED_BY,
    "draws",
    "images",
    "ssim",
    "ssim_prior",
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
        `ssim_prior` and `psnr` are over; `seconds` is the mean wall time of one attack on one client.
    """
    runs = per_attack_run(leakage)
    grouped = runs.groupby(COMPARED_BY, sort=False)
    means = grouped[["label_accuracy", "iterations", "seconds"]].mean()
    images = leakage.groupby(COMPARED_BY, sort=False)[["ssim", "ssim_prior", "psnr"]].mean()
    table = means.join(images).assign(draws=grouped.size(), images=grouped["images"].sum())
    return table.reset_index()[COMPARISON_COLUMNS]
