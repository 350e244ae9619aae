"""Means over draws with their intervals, as all figures draw and explain them."""

from dataclasses import dataclass

import pandas as pd

from leakpipe.randomness import derive_seed
from leakpipe.tables.statistics import FEWEST_CLUSTERS, bootstrap_mean

INTERVAL = (
    f"A bar is the 95 % interval of a mean over draws (seeds), by bootstrap of whole draws; fewer than "
    f"{FEWEST_CLUSTERS} draws have none."
)
_SEED = derive_seed("intervals of figures")


@dataclass(frozen=True)
class Mean:
    """A mean over values, and the 95 % interval over draws; its ends are NaN for fewer than 3 draws."""

    value: float
    low: float
    high: float


def mean_over_draws(rows: pd.DataFrame, column: str) -> Mean:
    """The mean of `column` over all rows, with the interval over draws (`bootstrap_mean` of whole seeds).

    Args:
        rows: Rows with a column `seed`; the column holds finite numbers.
        column: Name of the column.
    """
    low, high = bootstrap_mean(rows[column], clusters=rows["seed"], seed=_SEED)
    return Mean(float(rows[column].mean()), low, high)
