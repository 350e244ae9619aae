"""The tidy tables: leakage (one row per true image and attack) and accuracy (one row per round)."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from leakpipe.errors import LeakpipeError
from leakpipe.files.log import note_read
from leakpipe.files.storage import write_atomically, write_text

KEY = ["experiment", "defense", "seed", "round", "client", "attack"]
SCORE_COLUMNS = [
    *KEY,
    "image",
    "reconstruction",
    "ssim",
    "ssim_prior",
    "ssim_affine",
    "ssim_min_max",
    "ms_ssim",
    "lpips",
    "psnr",
    "psnr_affine",
    "psnr_registered",
    "mse",
    "rdlv",
    "text_accuracy",
    "text_accuracy_prior",
    "text_chance",
    "text_read",
    "label_accuracy",
    "iterations",
]
LEAKAGE_COLUMNS = [*SCORE_COLUMNS, "explained", "seconds"]
TEXTS = ["experiment", "defense", "client", "attack", "embedder", "naive_attack", "adaptive_attack", "text_read"]
NUMBERS = {*LEAKAGE_COLUMNS, "test_accuracy", "validation_accuracy", "rank", "rank_prior", "candidates", "chance"} - {
    *TEXTS
}
ACCURACY_COLUMNS = ["experiment", "defense", "seed", "round", "test_accuracy", "validation_accuracy"]


def write_scores(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the scores of one attack: the same bytes for the same rows."""
    write_table(path, pd.DataFrame(list(rows), columns=SCORE_COLUMNS))


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as .csv (shortest decimals that read back exactly) or .parquet."""
    if path.suffix == ".parquet":
        with write_atomically(path) as stream:
            table.to_parquet(stream, index=False)
    else:
        write_text(path, table.to_csv(index=False, lineterminator="\n"))


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a .csv or .parquet table that must have `columns`."""
    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    except OSError as error:
        raise LeakpipeError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # pandas and pyarrow raise many types
        raise LeakpipeError(f"{path}: is not a {path.suffix.removeprefix('.')} table: {error}") from error
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise LeakpipeError(f"{path}: column {missing[0]!r} is missing")
    for column in NUMBERS.intersection(columns):
        if not (is_numeric_dtype(table[column]) or table[column].isna().all()):
            raise LeakpipeError(f"{path}: column {column!r}: expected numbers, there is text among them")
    note_read(path)
    return table


def _read_csv(path: Path) -> pd.DataFrame:
    """Reads names and numbers as they were written.

    pandas alone takes `01` for a number and `NA` or `null` for an empty cell. Before version 3 it misses the last
    bit of some floats as well, unless told not to, which later versions warn of.
    """
    texts: dict[Hashable, type] = dict.fromkeys(TEXTS, str)
    exact: Mapping[str, Any] = {"float_precision": "round_trip"} if int(pd.__version__.split(".")[0]) < 3 else {}
    table: pd.DataFrame = pd.read_csv(path, dtype=texts, keep_default_na=False, na_values=[""], **exact)
    return table


def collect_leakage(scores: Iterable[pd.DataFrame], attacks: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Joins all scores with the attacks' wall time and the share of the update that they explain.

    Args:
        scores: Tables of `SCORE_COLUMNS`.
        attacks: `{"cell": …, "explained": …, "seconds": …}` as the run records of the attacks hold them.

    Returns:
        `LEAKAGE_COLUMNS`, sorted by cell and image. `seconds` is the wall time of the attack that the image
        was rebuilt in (all images of a client together); it is the only column that a second run of the
        same parameters changes.
    """
    measured = ["explained", "seconds"]
    timings = pd.DataFrame([{**attack["cell"], **{name: attack[name] for name in measured}} for attack in attacks])
    rows = pd.concat(list(scores), ignore_index=True)
    if rows.empty or timings.empty:
        raise LeakpipeError("there are no scores or no attack records to collect")
    timings["explained"] = timings["explained"].astype(float)  # None where nothing is matched
    joined = rows.merge(timings[[*KEY, *measured]], on=KEY, how="left", validate="many_to_one")
    untimed = joined[joined["seconds"].isna()]
    if len(untimed):
        raise LeakpipeError(f"no run record for attack {dict(untimed.iloc[0][KEY])}")
    return joined[LEAKAGE_COLUMNS].sort_values([*KEY, "image"], ignore_index=True)


def collect_accuracy(histories: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Stack accuracy histories, sorted by defence, seed and round."""
    stacked = pd.concat(list(histories), ignore_index=True)[ACCURACY_COLUMNS]
    return stacked.sort_values(["experiment", "defense", "seed", "round"], ignore_index=True)


def identifiability_columns(top: Sequence[int]) -> list[str]:
    """Columns of the table for the given values of k."""
    hits = [column for k in top for column in (f"top{k}", f"top{k}_prior")]
    key = [*KEY, "image", "reconstruction", "embedder"]
    return [*key, "rank", "rank_prior", *hits, "candidates", "chance", "chance_client"]


def collect_identifiability(tables: Iterable[pd.DataFrame], *, top: Sequence[int]) -> pd.DataFrame:
    """Stack the tables of all attacks, sorted by attack, image and embedder."""
    stacked = pd.concat(list(tables), ignore_index=True)[identifiability_columns(top)]
    return stacked.sort_values([*KEY, "image", "embedder"], ignore_index=True)
