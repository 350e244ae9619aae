"""The data of the page's own script: the leakage table, the filters of its rows, and their pictures."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd

from leakpipe.defenses.naming import name_defenses, noise_multipliers
from leakpipe.randomness import derive_seed
from leakpipe.report.pictures import PagePictures
from leakpipe.tables.statistics import add_gain, bootstrap_mean
from leakpipe.tables.verdicts import Verdict
from leakpipe.tables.wording import describe_client

FIRST = (
    "client",
    "defense",
    "attack",
    "round",
    "seed",
    "image",
    "ssim",
    "ssim_prior",
    "rdlv",
)  # columns, left to right
DIGITS = {  # decimals shown; other columns as they are
    **dict.fromkeys(("ssim", "ssim_prior", "ssim_affine", "ssim_min_max", "ms_ssim", "lpips", "label_accuracy"), 3),
    **dict.fromkeys(("psnr", "psnr_affine", "psnr_registered", "seconds"), 1),
    "mse": 4,
    **dict.fromkeys(("rdlv", "text_accuracy", "text_accuracy_prior", "text_chance"), 2),
}


def describe_rows(
    leakage: pd.DataFrame,
    *,
    params: Mapping[str, Any],
    accuracy: Mapping[str, float],
    worst: Verdict,
    pictures: PagePictures | None,
) -> dict[str, Any]:
    """Everything that the page's script needs, as JSON.

    Args:
        leakage: The leakage table.
        params: All parameters; filters list clients, defences and attacks as they name them.
        accuracy: Mean test accuracy after the last round, by defence.
        worst: The verdict whose strongest attack and round the page shows first, above them its most leaked image.
        pictures: Of the rows; None for a page without pictures.

    Returns:
        `columns` but those that are empty, `rows` (a number is rounded as shown, None where there is none, text "inf"
        where it is infinite), `digits` by column, `filters` (the values of each, with what to call them), `intervals`
        (95 %, over seeds, of the mean `gain`, `ssim` and `rdlv` of each client, defence, attack and round of three
        seeds or more, by the JSON of their names), `start` (which rows are shown first), `lead` (number of the row of
        the most leaked image), `noise` and `accuracy` by defence, `pictures`.
    """
    shown = leakage.dropna(axis="columns", how="all").drop(columns="experiment")
    shown = shown[[*FIRST, *(name for name in shown.columns if name not in FIRST)]]
    columns = [str(name) for name in shown.columns]
    return {
        "columns": columns,
        "digits": {name: digits for name, digits in DIGITS.items() if name in columns},
        "rows": [[_write(row[name], DIGITS.get(name)) for name in columns] for row in shown.to_dict("records")],
        "filters": _list_filters(shown, params),
        "intervals": _find_intervals(leakage),
        "start": {"attack": worst.attack, "round": str(worst.round)},
        "lead": _find_most_leaked(leakage, worst),
        "noise": noise_multipliers(params["defenses"]),
        "accuracy": dict(accuracy),
        "pictures": asdict(pictures) if pictures else None,
    }


def _find_most_leaked(leakage: pd.DataFrame, worst: Verdict) -> int:
    there = (leakage["client"] == worst.client) & (leakage["defense"] == worst.defense)
    return int((leakage["ssim"] - leakage["ssim_prior"]).where(there, -3).to_numpy().argmax())


def _find_intervals(leakage: pd.DataFrame) -> dict[str, dict[str, list[float]]]:
    intervals: dict[str, dict[str, list[float]]] = {}
    for place, rows in add_gain(leakage).groupby(["client", "defense", "attack", "round"], sort=False):
        name = json.dumps([str(part) for part in place], ensure_ascii=False, separators=(",", ":"))
        for measure in ("gain", "ssim", "rdlv"):
            known = rows[rows[measure].abs() < math.inf]
            ends = bootstrap_mean(known[measure], clusters=known["seed"], seed=derive_seed("chart", name, measure))
            if not math.isnan(ends[0]):
                intervals.setdefault(name, {})[measure] = [round(end, 4) for end in ends]
    return intervals


def _list_filters(shown: pd.DataFrame, params: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """The values that each of five columns holds, in the parameters' order, with what to call them."""
    clients = params["federation"]["clients"]
    named = {
        "client": {name: describe_client(name, client) for name, client in clients.items()},
        "round": {number: str(number) for number in sorted(shown["round"].unique())},
        "defense": name_defenses(params["defenses"]),
        "attack": {name: name for name in params["attacks"]},
        "seed": {number: str(number) for number in sorted(shown["seed"].unique())},
    }
    return {
        column: [(str(value), text) for value, text in texts.items() if value in set(shown[column])]
        for column, texts in named.items()
    }


def _write(value: Any, digits: int | None) -> Any:
    if not isinstance(value, float):
        return value
    if math.isnan(value):
        return None
    if math.isinf(value):
        return str(value)
    return value if digits is None else round(value, digits)
