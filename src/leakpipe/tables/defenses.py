"""Leakage, accuracy and guarantee of each defence: one row per defence, the one to switch on first."""

from collections.abc import Collection, Mapping, Sequence
from math import isnan, sqrt
from typing import Any

import numpy as np
import pandas as pd

from leakpipe.errors import LeakpipeError
from leakpipe.randomness import derive_seed
from leakpipe.tables.statistics import bootstrap_mean, compare_draws, draw_means
from leakpipe.tables.wording import VERDICTS

SIGNS = 6
PROMISED = ["kind", "epsilon", "delta", "unit", "guarantee"]  # columns of the privacy table
DEFENSE_COLUMNS = [
    "defense",
    "kind",
    "client",
    "draws",
    *("naive_attack", "naive_rdlv", "naive_rdlv_low", "naive_rdlv_high"),
    *("adaptive_attack", "adaptive_rdlv", "adaptive_rdlv_low", "adaptive_rdlv_high"),
    "rdlv",
    "verdict",
    *("accuracy", "accuracy_low", "accuracy_high"),
    *("accuracy_lost", "accuracy_lost_low", "accuracy_lost_high"),
    "test_images",
    "destroyed",
    "front",
    *("epsilon", "delta", "unit", "guarantee"),
]


def compare_defenses(
    leakage: pd.DataFrame,
    accuracy: pd.DataFrame,
    privacy: pd.DataFrame,
    *,
    verdicts: Mapping[str, str],
    client: str,
    defenses: Sequence[str],
    adaptive: Collection[str] = (),
    chance: float,
    test_images: int,
) -> pd.DataFrame:
    """Compares the leak that every defence leaves, its accuracy and its guarantee.

    Under each defence the attack with the largest mean RDLV counts, among those that know nothing of the defence and
    among those that know it. Which one is chosen by the same numbers, so its RDLV is a little too high by chance.

    Args:
        leakage: The leakage table: all captured rounds and images of `client` count.
        accuracy: The accuracy table: the last round counts.
        privacy: What is guaranteed (`leakpipe.accounting.table`).
        verdicts: By defence, what may be said of `client` (`leakpipe.tables.verdicts`): the word.
        client: Client whose leak counts.
        defenses: Names of the defences; the first is what accuracy is lost against.
        adaptive: Attacks that know the defence.
        chance: Accuracy of always naming the commonest class.
        test_images: Images behind the accuracy of one draw.

    Returns:
        `DEFENSE_COLUMNS`, a row for each defence that `client` was attacked under: those under which no leak was
        found first, the most accurate first among them, then those that the attacks cannot tell of, then those that
        leak, likewise.
    """
    kept = accuracy[accuracy["round"] == accuracy["round"].max()]
    rows = leakage[(leakage["client"] == client) & leakage["rdlv"].notna()]
    undefended = draw_means(kept[kept["defense"] == defenses[0]], "test_accuracy")
    promised = privacy[privacy["adversary"] == "server"].set_index("defense")[PROMISED]
    table = []
    for name in defenses:
        attacked, trained = rows[rows["defense"] == name], kept[kept["defense"] == name]
        if attacked.empty:
            continue
        adapted = attacked["attack"].isin(list(adaptive))
        leaks = {"naive": _find_best(attacked[~adapted]), "adaptive": _find_best(attacked[adapted])}
        utility = _measure_utility(trained, undefended, chance=chance, test_images=test_images)
        table.append(
            {
                "defense": name,
                "client": client,
                "draws": attacked["seed"].nunique(),
                **{f"{whose}_{what}": value for whose, leak in leaks.items() for what, value in leak.items()},
                "rdlv": max(leak["rdlv"] for leak in leaks.values() if leak),
                "verdict": verdicts[name],
                **utility,
                **{column: promised.at[name, column] for column in PROMISED},
            }
        )
    if not table:
        raise LeakpipeError(f"the leakage table has no RDLV of client {client!r} under {', '.join(defenses)}")
    best = find_front([(row["accuracy"], row["rdlv"]) for row in table])
    found = pd.DataFrame([{**row, "front": index in best} for index, row in enumerate(table)], columns=DEFENSE_COLUMNS)
    order = found.assign(rank=found["verdict"].map(VERDICTS.index)).sort_values(
        ["rank", "accuracy", "defense"], ascending=[True, False, True], ignore_index=True
    )
    return order[DEFENSE_COLUMNS]


def _find_best(rows: pd.DataFrame) -> dict[str, Any]:
    """The attack with the largest mean RDLV, with its interval over draws; nothing where none was run."""
    if rows.empty:
        return {}
    means = rows.groupby("attack", sort=True)["rdlv"].mean()
    attack = str(means.idxmax())
    chosen = rows[rows["attack"] == attack]
    low, high = bootstrap_mean(chosen["rdlv"], clusters=chosen["seed"], seed=derive_seed("defence leak", attack))
    return {"attack": attack, "rdlv": float(means.max()), "rdlv_low": low, "rdlv_high": high}


def _measure_utility(
    trained: pd.DataFrame, undefended: pd.Series, *, chance: float, test_images: int
) -> dict[str, Any]:
    if trained.empty:
        raise LeakpipeError("the accuracy table lacks a defence of the leakage table")
    values = draw_means(trained, "test_accuracy")
    low, high = bootstrap_mean(values, seed=derive_seed("defence accuracy"))
    lost = compare_draws(undefended, values, seed=derive_seed("defence accuracy lost"))
    mean = float(values.mean())
    return {
        "accuracy": mean,
        "accuracy_low": low,
        "accuracy_high": high,
        "accuracy_lost": lost.difference,
        "accuracy_lost_low": lost.low,
        "accuracy_lost_high": lost.high,
        "test_images": test_images,
        "destroyed": is_destroyed(mean, chance=chance, images=test_images * len(values)),
    }


def commonest_class(tested: Sequence[np.ndarray]) -> tuple[float, int]:
    """Accuracy of always naming the commonest class, a mean over draws, and the number of test images of one draw.

    Args:
        tested: Class of every test image, for each draw.
    """
    return float(np.mean([np.bincount(labels).max() / len(labels) for labels in tested])), len(tested[0])


def is_destroyed(accuracy: float, *, chance: float, images: int) -> bool:
    """Returns whether a model is not distinguishably better than always naming the commonest class.

    Args:
        accuracy: Mean test accuracy.
        chance: Share of the commonest class.
        images: Test images that the mean is over, all draws together.

    Returns:
        True up to two standard errors above chance.
    """
    return isnan(accuracy) or accuracy <= chance + 2 * sqrt(chance * (1 - chance) / images)


def least_loss_seen(images: int) -> float:
    """The smallest loss of accuracy that test images can show at all: fewer wrong answers more may well be chance.

    Where `SIGNS` images, and no others, change from right to wrong, a sign test has p = 2 / 2⁶ = 0.03; with fewer it
    has p > 0.05.

    Args:
        images: Test images, all draws together.
    """
    return SIGNS / images


def find_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Returns the points that no other beats: none has at least the accuracy and at most the leakage, and differs.

    Args:
        points: Accuracy and leakage of each.

    Returns:
        Indices, ascending.
    """
    return [
        index
        for index, (accuracy, leak) in enumerate(points)
        if not any(other != (accuracy, leak) and other[0] >= accuracy and other[1] <= leak for other in points)
    ]
