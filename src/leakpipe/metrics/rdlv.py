"""Relative data leakage value (Hatamizadeh 2023)."""

import pandas as pd

from leakpipe.metrics.table import KEY


def rdlv(similarity: float, prior_similarity: float) -> float:
    """RDLV = (SIM(T, I) − SIM(P, I)) / SIM(P, I): how much more the attack tells about I than its prior.

    Args:
        similarity: SIM(T, I), of the reconstruction to the training image (SSIM).
        prior_similarity: SIM(P, I), of the prior that the attack started from.

    Returns:
        Above 0: leaked. NaN where the prior's similarity is not positive: a ratio to it has no meaning.
    """
    if prior_similarity <= 0:
        return float("nan")
    return (similarity - prior_similarity) / prior_similarity


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
