"""Theory beside practice: bounds on identification, and how often attacks identified an image."""

from collections.abc import Collection, Mapping, Sequence
from math import nan, sqrt

import numpy as np
import pandas as pd

from leakpipe.accounting.gaussian import compose_gaussians, gaussian_epsilon, success_bound
from leakpipe.randomness import derive_seed
from leakpipe.tables.statistics import bootstrap_mean

BOUND_COLUMNS = [
    *("defense", "round", "epsilon", "prior_success", "bound"),
    *("attack", "identified", "identified_low", "identified_high", "reconstructions", "draws"),
]


def class_chance(labels: np.ndarray, clients: Mapping[str, Sequence[int]], client: str) -> float:
    """Returns how often a guess among all images of the right class is one of `client`, at best over classes.

    Args:
        labels: Class of every image of the data set.
        clients: Indices of every client's images.
        client: Whose images are looked for.
    """
    own = np.bincount(labels[list(clients[client])])
    held = np.bincount(labels[[index for indices in clients.values() for index in indices]], minlength=len(own))
    return float((own / np.maximum(held[: len(own)], 1)).max())


def compare_with_bounds(
    identifiability: pd.DataFrame,
    privacy: pd.DataFrame,
    *,
    client: str,
    embedder: str,
    prior_success: float,
    attacks: Collection[str],
) -> pd.DataFrame:
    """Compare the share of recognised images with its bound, for every defence that has one, round by round.

    The global model that a client is sent depends on what it shared before, so an attack on round r has seen r
    releases. Of the attacks the one that recognises most counts.

    Args:
        identifiability: The identifiability table.
        privacy: The privacy table.
        client: Attacked client.
        embedder: What measured nearness.
        prior_success: κ, how often a guess without the release is right at best.
        attacks: Attacks that count.

    Returns:
        `BOUND_COLUMNS`, in the order of `privacy`, then by round; `epsilon` is after so many rounds, of replacing.
    """
    rows = identifiability[(identifiability["client"] == client) & (identifiability["embedder"] == embedder)]
    rows = rows[rows["attack"].isin(list(attacks))]
    bounded = privacy[(privacy["adversary"] == "server") & privacy["signal"].notna()]
    table = []
    for promise in bounded.to_dict("records"):
        attacked = rows[rows["defense"] == promise["defense"]]
        for number, seen in attacked.groupby("round", sort=True):
            means = seen.groupby("attack", sort=True)["top1"].mean()
            best = seen[seen["attack"] == means.idxmax()]
            mu = compose_gaussians(promise["signal"], int(str(number)))
            low, high = bootstrap_mean(best["top1"], clusters=best["seed"], seed=derive_seed("bound", number))
            found = (means.idxmax(), means.max(), low, high, len(best), best["seed"].nunique())
            epsilon = gaussian_epsilon(2 * mu, promise["delta"])
            place = (promise["defense"], number, epsilon, prior_success, success_bound(prior_success, mu))
            table.append((*place, *found))
    return pd.DataFrame(table, columns=BOUND_COLUMNS)


def bound_curve(epsilons: Sequence[float], *, delta: float, prior_success: float) -> list[float]:
    """The bound at each ε of replacing: the curve that all bounds of `compare_with_bounds` lie on."""
    return [success_bound(prior_success, _signal_at(epsilon, delta)) for epsilon in epsilons]


def _signal_at(epsilon: float, delta: float) -> float:
    """μ of a removal whose replacement (2μ) has this ε at δ, by bisection: ε grows with μ."""
    low, high = 0.0, sqrt(2 * epsilon) + 1.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if gaussian_epsilon(2 * middle, delta) < epsilon else (low, middle)
    return high if high > 0 else nan
