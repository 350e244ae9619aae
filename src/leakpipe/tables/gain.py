"""What an attack tells of an image beyond its prior, in SSIM."""

import pandas as pd

from leakpipe.tables.table import KEY


def add_gain(leakage: pd.DataFrame) -> pd.DataFrame:
    """The leakage table with a column `gain`: how much higher SSIM is than the prior's, in [−2, 2]."""
    return leakage.assign(gain=leakage["ssim"] - leakage["ssim_prior"])


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
