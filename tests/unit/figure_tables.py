"""Tables and pictures for the tests of figures, and what to ask a drawn figure."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leakpipe.figures.pictures import Pictures

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
ROUNDS = {"attack": "main", "defense": "none", "clients": CLIENTS, "compare": ["other"]}
NOISE = {"attack": "main", "sigma0": SIGMA0, "clients": CLIENTS}
NO_TEXT = {"text_accuracy": np.nan, "text_accuracy_prior": np.nan, "text_chance": np.nan, "text_read": np.nan}
ATTACKS = {"attacks": ["main", "other"], "defense": "none", "clients": CLIENTS}


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
                                    "seconds": 1.5,
                                }
                            )
    return pd.DataFrame(rows)


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


def flat_pictures() -> Pictures:
    """Each reconstruction is a flat gray that says which (defence, seed, client, index) it is."""
    originals = np.linspace(0, 1, 30, dtype=np.float32)[:, None, None, None] * np.ones((1, 1, 8, 8), np.float32)
    priors = {(seed, image): np.full((1, 8, 8), 0.5, np.float32) for seed in (0, 1) for image in range(30)}
    rebuilt = {
        (defense, seed, client): np.stack([np.full((1, 8, 8), gray_of(defense, seed, client, i)) for i in range(count)])
        for defense in DEFENSES
        for seed in (0, 1)
        for client, count in (("one", 1), ("eight", 3))
    }
    return Pictures(originals, priors, rebuilt)


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
