"""The table of identifiability: one row per reconstruction and embedder."""

from collections.abc import Iterable, Sequence

import pandas as pd

from leakpipe.tables.table import KEY


def identifiability_columns(top: Sequence[int]) -> list[str]:
    """Columns of the table for the given values of k."""
    hits = [column for k in top for column in (f"top{k}", f"top{k}_prior")]
    key = [*KEY, "image", "reconstruction", "embedder"]
    return [*key, "rank", "rank_prior", *hits, "candidates", "chance", "chance_client"]


def collect_identifiability(tables: Iterable[pd.DataFrame], *, top: Sequence[int]) -> pd.DataFrame:
    """Stack the tables of all attacks, sorted by attack, image and embedder."""
    stacked = pd.concat(list(tables), ignore_index=True)[identifiability_columns(top)]
    return stacked.sort_values([*KEY, "image", "embedder"], ignore_index=True)
