"""Tables and pictures for the tests of figures, how to draw one of them, and what to ask a drawn figure."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leakpipe.accounting.table import tabulate_guarantees
from leakpipe.defenses.naming import name_defenses
from leakpipe.figures.images import Attacked, Pictures
from leakpipe.figures.registry import find_figure
from leakpipe.figures.style import Drawing
from leakpipe.params.federation import FederationParams
from leakpipe.tables.defenses import DEFENSE_COLUMNS
from leakpipe.tables.table import identifiability_columns

CLIENTS = {
    "eight": {"images": 3, "batch_size": 2},
    "one": {"images": 1, "batch_size": 1},
    "unattacked": {"images": 9, "batch_size": 3},
}
DEFENSES: dict[str, list[dict[str, Any]]] = {
    "loud": [{"kind": "gaussian", "sigma0": 20}],
    "none": [],
    "clipped": [{"kind": "clip", "norm": 1.0}],
    "quiet": [{"kind": "gaussian", "sigma0": 0.5}],
}
SIGMA0 = {"none": 0.0, "quiet": 0.5, "loud": 20.0}
NO_TEXT = {"text_accuracy": np.nan, "text_accuracy_prior": np.nan, "text_chance": np.nan, "text_read": np.nan}
EFFECT = {"title": "Effect of a thing", "attacks": {"main": "with it", "other": "without"}, "clients": ["one"]}
HOLDINGS = {"one": [10], "eight": [20, 21, 22], "unattacked": list(range(9))}
DP = {"kind": "dp-gaussian", "clip_norm": 1.0, "noise_multiplier": 2.0}
SETTINGS: dict[str, Any] = {
    "attacks": ["main", "other"],
    "adaptive": ["main"],
    "defense": "none",
    "captured_round": 7,
    "clients": CLIENTS,
    "client": "one",
    "defenses": name_defenses(DEFENSES),
    "sigma0": SIGMA0,
    "local_epochs": 1,
    "embedders": ["pixels"],
    "delta": 1e-5,
}


def draw(name: str, **changes: Any) -> Drawing:
    """Draw a figure of the tables and settings here, but for `changes`; `effect-thing` is that of `EFFECT`."""
    figure = find_figure(name, {"thing": changes.pop("comparison", EFFECT)})
    given = {**tables(), **changes}
    reads = {each: given[each] for each in figure.reads}
    return figure.draw(**reads, **figure.choose({**SETTINGS, "images_per_client": 2, **changes}))


def tables(seed: int = 0) -> dict[str, Any]:
    """The tables that figures read, by name."""
    federation = FederationParams.model_validate(
        {"rounds": 7, "captured_rounds": [2, 7], "learning_rate": 0.1, "local_epochs": 1, "batch_norm_momentum": 0.1}
        | {"clients": CLIENTS}
    )
    return {
        "leakage": leakage_table(seed),
        "accuracy": accuracy_table(),
        "identifiability": identifiability_table(seed),
        "defense_table": defense_table(seed),
        "privacy": tabulate_guarantees({**DEFENSES, "loud": [DP]}, federation, delta=1e-5),
        "dataset": SimpleNamespace(images=textured_pictures(seed).originals, labels=np.arange(30) % 3),
        "splits": {number: SimpleNamespace(clients={**HOLDINGS, "one": [10 + number]}) for number in (0, 1)},
        "pictures": textured_pictures(seed),
    }


def identifiability_table(seed: int = 0) -> pd.DataFrame:
    """Every image of `leakage_table` by one embedder; hits are drawn."""
    table, rng = leakage_table(seed), np.random.default_rng(seed)
    fixed = {"embedder": "pixels", "rank": 2.0, "rank_prior": 9.0, "candidates": 13, "chance": 1 / 13}
    hits = {name: (rng.random(len(table)) < 0.5).astype(float) for name in ("top1", "top1_prior")}
    return table.assign(**fixed, **hits, chance_client=3 / 13)[identifiability_columns((1,))]


def defense_table(seed: int = 0) -> pd.DataFrame:
    """`loud` has an ε and its accuracy is at chance."""
    rng = np.random.default_rng(seed)
    rows = [
        {"defense": name, "client": "one", "draws": 2, "naive_rdlv": value, "rdlv": value, "accuracy": 0.5 + value / 10}
        for name, value in zip(DEFENSES, rng.uniform(-1, 1, len(DEFENSES)), strict=True)
    ]
    table = pd.DataFrame(rows, columns=DEFENSE_COLUMNS).assign(front=True, verdict="leaks")
    loud = table["defense"] == "loud"
    return table.assign(destroyed=loud, epsilon=np.where(loud, 3.0, np.nan))


def leakage_table(seed: int = 0, *, draws: int = 2) -> pd.DataFrame:
    """Two rounds, a client of one image and one of three; `other` attacks only the first, without noise."""
    rng = np.random.default_rng(seed)
    rows = []
    for defense in DEFENSES:
        for number in range(draws):
            for captured in (2, 7):
                for client, images in (("one", [10 + number]), ("eight", [20, 21, 22])):
                    for attack in ("main", "other") if client == "one" and defense == "none" else ("main",):
                        for index, image in enumerate(images):
                            ssim, prior = rng.uniform(-0.1, 1), rng.uniform(0.2, 0.5)
                            rows.append(
                                {
                                    "experiment": "x",
                                    "defense": defense,
                                    "seed": number,
                                    "round": captured,
                                    "client": client,
                                    "attack": attack,
                                    "image": image,
                                    "reconstruction": len(images) - 1 - index,
                                    "ssim": ssim,
                                    "ssim_prior": prior,
                                    "ssim_affine": (1 + ssim) / 2,
                                    "ssim_min_max": ssim,
                                    "ms_ssim": np.nan,
                                    "lpips": np.nan,
                                    "psnr": 20.0,
                                    "psnr_affine": 21.0,
                                    "psnr_registered": 20.0,
                                    "mse": 0.01,
                                    "rdlv": (ssim - prior) / prior,
                                    **NO_TEXT,
                                    "label_accuracy": 1.0,
                                    "iterations": 5 if attack == "main" else 50,
                                    "explained": 0.9,
                                    "seconds": 1.5,
                                }
                            )
    return pd.DataFrame(rows)


def strongest(rows: pd.DataFrame, *each: str) -> pd.DataFrame:
    """Rows of the run with the largest mean gain at each place, by going through them one by one."""
    kept = []
    for _, there in rows.assign(gain=rows.ssim - rows.ssim_prior).groupby(list(each)):
        runs = [run for _, run in there.groupby(["client", "defense", "round", "attack"])]
        kept.append(max(runs, key=lambda run: sum(run.gain) / len(run)))
    return pd.concat(kept)


def accuracy_table(*, draws: int = 2) -> pd.DataFrame:
    """After the last round the mean is `level` + 0.025 for two draws; loud noise costs 0.2."""
    rows = [
        {
            "experiment": "x",
            "defense": defense,
            "seed": seed,
            "round": number,
            "test_accuracy": level + 0.05 * seed - shift,
        }
        for number, shift in ((1, 0.3), (7, 0.0))
        for defense, level in (("none", 0.9), ("quiet", 0.85), ("clipped", 0.1), ("loud", 0.7))
        for seed in range(draws)
    ]
    return pd.DataFrame(rows).assign(validation_accuracy=0.5)


def make_pictures(originals: np.ndarray, prior: np.ndarray, rebuilt: Mapping[tuple[str, int, str], Any]) -> Pictures:
    """Pictures with one prior for all, and reconstructions by (defence, seed, client)."""

    def load(cell: Mapping[str, Any]) -> Attacked:
        images = [10 + cell["seed"]] if cell["client"] == "one" else [20, 21, 22]
        found = rebuilt[cell["defense"], cell["seed"], cell["client"]]
        return found, np.stack([prior] * len(images)), images

    return Pictures(originals, load)


def textured_pictures(seed: int = 5) -> Pictures:
    """Pictures large enough for SSIM, all different; reconstructions lie between prior and original."""
    rng = np.random.default_rng(seed)
    originals, prior = rng.uniform(size=(30, 1, 16, 16)), rng.uniform(size=(1, 16, 16))
    rebuilt = {
        (defense, seed, client): np.stack([0.5 * originals[image] + 0.5 * prior for image in images])
        for defense in DEFENSES
        for seed in (0, 1)
        for client, images in (("one", [10 + seed]), ("eight", [22, 21, 20]))
    }
    return make_pictures(originals, prior, rebuilt)


def flat_pictures() -> Pictures:
    """Each reconstruction is a flat gray that says which (defence, seed, client, index) it is."""
    originals = np.linspace(0, 1, 30, dtype=np.float32)[:, None, None, None] * np.ones((1, 1, 8, 8), np.float32)
    rebuilt = {
        (defense, seed, client): np.stack([np.full((1, 8, 8), gray_of(defense, seed, client, i)) for i in range(count)])
        for defense in DEFENSES
        for seed in (0, 1)
        for client, count in (("one", 1), ("eight", 3))
    }
    return make_pictures(originals, np.full((1, 8, 8), 0.5, np.float32), rebuilt)


def gray_of(defense: str, seed: int, client: str, index: int) -> float:
    return (list(DEFENSES).index(defense) * 12 + seed * 6 + (3 if client == "one" else 0) + index) / 100


def line(axes: Axes, label: str) -> Line2D:
    return next(drawn for drawn in axes.lines if drawn.get_label() == label)


def bars(axes: Axes) -> list[tuple[float, float, float]]:
    """(place, low, high) of every upright interval, in the order drawn."""
    segments = [segment for drawn in axes.collections if isinstance(drawn, LineCollection)
                for segment in drawn.get_segments()]  # fmt: skip
    return [(float(a[0]), float(a[1]), float(b[1])) for a, b in segments if a[0] == b[0]]


def assert_dots_inside(axes: Axes) -> None:
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    for drawn in axes.lines:
        if drawn.get_transform() == axes.transData:
            x, y = np.asarray(drawn.get_xdata(), float), np.asarray(drawn.get_ydata(), float)
            if len(x):
                assert left < x.min()
                assert x.max() < right
                assert low < y.min()
                assert y.max() < high


def texts_of(figure: Figure) -> set[str]:
    return {text.get_text() for text in figure.texts}


def images_of(figure: Figure) -> list[np.ndarray]:
    """Every picture, row by row from the top, left to right."""
    axes = [one for one in figure.axes if one.images]
    axes.sort(key=lambda one: (-round(one.get_position().y0, 4), one.get_position().x0))
    return [np.asarray(one.images[0].get_array()) for one in axes]
