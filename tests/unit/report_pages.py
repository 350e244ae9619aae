"""Tables, records and a page for the tests of the report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from leakpipe.accounting.table import tabulate_guarantees
from leakpipe.figures.images import CELL, Attacked, Pictures
from leakpipe.files.storage import write_text
from leakpipe.params.federation import FederationParams
from leakpipe.records.run_record import RECORD_KIND
from leakpipe.report.page import load_figure, render_page
from leakpipe.report.pictures import PagePictures, arrange_pictures
from leakpipe.tables.defenses import compare_defenses
from leakpipe.tables.headline import summarize
from leakpipe.tables.verdicts import judge_cells, tabulate_verdicts
from tests.unit.figure_tables import NO_TEXT

PARAMS: dict[str, Any] = {
    "experiment": "x",
    "data": {"dataset": "faces <b>&"},
    "federation": {
        "clients": {"alone": {"images": 1, "batch_size": 1}, "many": {"images": 2, "batch_size": 2}},
    },
    "defenses": {
        "loud": [{"kind": "gaussian", "sigma0": 20}],
        "none": [],
        "quiet": [{"kind": "gaussian", "sigma0": 1}],
    },
    "attacks": {"main": {}, "other": {}},
}
DP = {"kind": "dp-gaussian", "clip_norm": 1, "noise_multiplier": 4}
FEDERATION = FederationParams.model_validate(
    {"rounds": 3, "captured_rounds": [3], "learning_rate": 1, "local_epochs": 1, "batch_norm_momentum": 0.1}
    | {"clients": {"alone": {"images": 1, "batch_size": 1}}}
)
SSIM = {"none": 0.95, "quiet": 0.6, "loud": 0.1}
ACCURACY = {"none": 0.9, "quiet": 0.8, "loud": 0.7}
CLAIMS: dict[str, Any] = {
    "definitions": {"draw": "A seed.", "interval": "Of the mean.", "gain": "SSIM over the prior.", "margins": "0.05."},
    "claims": [
        {
            "id": "main-leaks",
            "sentence": "The client <alone> leaks.",
            "source": "Somebody.",
            "statistic": "SSIM gain of main.",
            "rule": "reproduced: above 0.05",
            "verdict": "reproduced",
            "estimate": {"of": "main on alone", "mean": 0.61, "low": -0.52, "high": 0.7, "draws": 8},
            "others": [{"of": "main, round 1", "mean": 0.45, "low": 0.4, "high": 0.5, "draws": 7}],
            "missing": None,
        },
        {
            "id": "noise-removes-main",
            "sentence": "Noise removes it.",
            "source": "Somebody.",
            "statistic": "SSIM gain of main.",
            "rule": "reproduced: at or below 0.05",
            "verdict": "not tested",
            "estimate": None,
            "others": [],
            "missing": "attack main under noise",
        },
    ],
}


def tables(ssim: Mapping[str, float] = SSIM) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`alone` leaks as `ssim` says, `many` nothing; every prior has 0.3."""
    rng = np.random.default_rng(0)
    rows = []
    for defense, level in ssim.items():
        for seed in (0, 1):
            for attack, client, images in (
                ("main", "alone", [seed]),
                ("main", "many", [5, 6]),
                ("other", "alone", [seed]),
            ):
                for image in images:
                    mean = level if (client, attack) == ("alone", "main") else 0.2
                    value = float(mean + rng.uniform(-0.02, 0.02))
                    row = {"experiment": "x", "defense": defense, "seed": seed, "round": 3, "client": client}
                    row |= {"attack": attack, "image": image, "reconstruction": 0, "ssim": value, "ssim_prior": 0.3}
                    rows.append(
                        row
                        | {
                            "ssim_affine": 0.96049,
                            "ssim_min_max": 0.5,
                            "ms_ssim": np.nan,
                            "lpips": np.nan,
                            "psnr": float("inf"),
                            "psnr_affine": float("inf"),
                            "psnr_registered": float("inf"),
                            "mse": 0.012345,
                            "rdlv": value / 0.3 - 1,
                            **NO_TEXT,
                            "label_accuracy": 1.0,
                            "iterations": 5,
                            "explained": 0.9,
                            "seconds": 1.25,
                        }
                    )
    accuracy = [
        {"experiment": "x", "defense": defense, "seed": seed, "round": number, "test_accuracy": ACCURACY[defense]}
        for defense in ssim
        for seed in (0, 1)
        for number in (1, 3)
    ]
    return pd.DataFrame(rows), pd.DataFrame(accuracy).assign(validation_accuracy=0.5)


def verdict_table(leakage: pd.DataFrame) -> pd.DataFrame:
    return tabulate_verdicts(judge_cells(leakage))


def defense_table(leakage: pd.DataFrame, accuracy: pd.DataFrame) -> pd.DataFrame:
    steps = {"none": [], "quiet": PARAMS["defenses"]["quiet"], "loud": [DP]}
    privacy = tabulate_guarantees(steps, FEDERATION, delta=1e-5)
    words = {verdict.defense: verdict.word for verdict in judge_cells(leakage) if verdict.client == "alone"}
    told = {"client": "alone", "verdicts": words, "adaptive": ["other"], "chance": 0.65, "test_images": 50}
    return compare_defenses(leakage, accuracy, privacy, defenses=list(steps), **told)


def run_record(**environment: Any) -> dict[str, Any]:
    return {
        "kind": RECORD_KIND,
        **{"id": "1", "params_hash": "2", "command": None, "artifacts": []},
        **{name: {} for name in ("labels", "params", "curves", "metrics", "details", "inputs", "outputs")},
        "rule": environment.pop("rule", "invert"),
        "environment": {
            "started": "2026-01-02T03:04:05.000+00:00",
            "seconds": 90.0,
            "peak_memory_mib": 100.0,
            "commit": "abc123",
            "uncommitted_changes": False,
            "module": "leakpipe.cli.invert",
            "code_version": "3",
            "versions": {"torch": "2.0"},
            "processor": "CPU",
            "cores": 2,
            "system": "Linux",
            "python": "3.11.1",
            **environment,
        },
    }


def page(tmp_path: Path, params: Mapping[str, Any] = PARAMS, **changes: Any) -> str:
    write_text(tmp_path / "rounds.svg", "<svg xmlns='http://www.w3.org/2000/svg'></svg>")
    write_text(tmp_path / "rounds.txt", "A caption with <i>tags</i>.\n")
    leakage, accuracy = tables()
    arguments: dict[str, Any] = {
        "leakage": leakage,
        "accuracy": accuracy,
        "metrics": summarize(leakage, accuracy),
        "verdicts": verdict_table(leakage),
        "claims": CLAIMS,
        "defenses": defense_table(leakage, accuracy),
        "params": params,
        "records": [run_record()],
        "figures": [load_figure("rounds", tmp_path / "rounds.svg", tmp_path / "rounds.txt", heading="By round")],
        "config_files": ["params.yaml"],
    }
    return render_page(**(arguments | changes))


def many_rows(number: int) -> pd.DataFrame:
    """A leakage table of so many attacks on `alone`, each with a seed, an image and a reconstruction of its own."""
    leakage, _ = tables()
    pattern = leakage.query("client == 'alone' and attack == 'main' and seed == 0")
    copies = [pattern.assign(seed=seed) for seed in range(-(-number // len(pattern)))]
    rows = pd.concat(copies, ignore_index=True).head(number)
    rng = np.random.default_rng(1)
    return rows.assign(image=rows["seed"], ssim=rng.uniform(0, 1, number), rdlv=rng.uniform(-1, 2, number))


def draw_pictures(leakage: pd.DataFrame, *, side: int, channels: int = 1) -> PagePictures:
    """Pictures of random pixels, which no PNG makes smaller: the largest that a page can get."""
    rng = np.random.default_rng(2)
    originals = rng.random((int(leakage["image"].max()) + 1, channels, side, side))

    images_of = {key: rows["image"].tolist() for key, rows in leakage.groupby(list(CELL))}

    def load(cell: Mapping[str, object]) -> Attacked:
        images = images_of[tuple(cell.values())]
        prior = np.full((len(images), channels, side, side), 0.5)
        return rng.random((len(images), channels, side, side)), prior, images

    return arrange_pictures(leakage, Pictures(originals, load))
