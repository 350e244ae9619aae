"""The few numbers that a reader looks for first: what DVC compares and what the README shows."""

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from leakpipe.tables.table import KEY
from leakpipe.tables.verdicts import judge_cells
from leakpipe.tables.wording import LEAKS


def summarize(
    leakage: pd.DataFrame, accuracy: pd.DataFrame, identifiability: pd.DataFrame | None = None
) -> dict[str, Any]:
    """Summarises the tables as nested JSON, the same for the same parameters and seed.

    Returns:
        `verdicts.<client>.<defense>`: what all attacks together say (`Verdict`): `word`, `leaked` of so many `images`,
        the mean `gain` of the strongest attack with its interval (`low`, `high`), and the share `identified`;
        `leakage.<attack>.<client>.<defense>`: mean, smallest and largest SSIM and RDLV over images, seeds and
        captured rounds, and how many values that is; `accuracy.<defense>`: mean test accuracy after the
        last round over seeds; `fingerprint`: SHA-256 over all rows but their wall time, equal for equal
        results.
    """
    leaks: dict[str, Any] = {}
    for (attack, client, defense), rows in leakage.groupby(["attack", "client", "defense"], sort=True):
        numbers = {
            "images": len(rows),
            "ssim_mean": _rounded(rows["ssim"].mean()),
            "ssim_min": _rounded(rows["ssim"].min()),
            "ssim_max": _rounded(rows["ssim"].max()),
            "rdlv_mean": _rounded(rows["rdlv"].mean()),
            "rdlv_min": _rounded(rows["rdlv"].min()),
            "rdlv_max": _rounded(rows["rdlv"].max()),
        }
        leaks.setdefault(str(attack), {}).setdefault(str(client), {})[str(defense)] = numbers
    last = accuracy[accuracy["round"] == accuracy["round"].max()]
    kept = {str(name): _rounded(rows["test_accuracy"].mean()) for name, rows in last.groupby("defense", sort=True)}
    stable = leakage.drop(columns="seconds").sort_values([*KEY, "image"])
    content = stable.to_csv(index=False, lineterminator="\n") + accuracy.to_csv(index=False, lineterminator="\n")
    verdicts: dict[str, Any] = {}
    for verdict in judge_cells(leakage.sort_values(KEY), identifiability):
        verdicts.setdefault(verdict.client, {})[verdict.defense] = {
            "word": verdict.word,
            "leaked": verdict.leaked,
            "images": verdict.images,
            "gain": _rounded(verdict.gain),
            "low": _rounded(verdict.low),
            "high": _rounded(verdict.high),
            "identified": _rounded(verdict.identified / verdict.looked_up) if verdict.looked_up else None,
        }
    digest = hashlib.sha256(content.encode()).hexdigest()
    return {"verdicts": verdicts, "leakage": leaks, "accuracy": kept, "fingerprint": digest}


def shorten(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Shortens what `summarize` returns to a line, the worst of everything, for `dvc metrics show`.

    Returns:
        `leaking`, the number of `defenses` under which any client leaks; `leaked` of so many `images` of all clients,
        under the defence that most leak under; the largest mean `gain` of an attack on a client; the largest share
        `identified` of a client's images, None where nobody looked; the lowest `accuracy` under any defence.
    """
    cells = [(name, cell) for client in summary["verdicts"].values() for name, cell in client.items()]
    under = {name: [cell for other, cell in cells if other == name] for name, _ in cells}
    leaked = {name: sum(cell["leaked"] for cell in those) for name, those in under.items()}
    worst = max(leaked, key=leaked.__getitem__)
    identified = [cell["identified"] for _, cell in cells if cell["identified"] is not None]
    return {
        "leaking": sum(any(cell["word"] == LEAKS for cell in those) for those in under.values()),
        "defenses": len(under),
        "leaked": leaked[worst],
        "images": sum(cell["images"] for cell in under[worst]),
        "gain": max(cell["gain"] for _, cell in cells),
        "identified": max(identified, default=None),
        "accuracy": min((value for value in summary["accuracy"].values() if value is not None), default=None),
    }


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 4)
