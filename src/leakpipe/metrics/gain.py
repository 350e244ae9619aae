"""What an attack tells of an image beyond its prior, in SSIM."""

import pandas as pd


def add_gain(leakage: pd.DataFrame) -> pd.DataFrame:
    """The leakage table with a column `gain`: how much higher SSIM is than the prior's, in [−2, 2]."""
    return leakage.assign(gain=leakage["ssim"] - leakage["ssim_prior"])
