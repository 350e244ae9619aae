"""Burned-in text in the tables: how much of a name and a birth date somebody could read."""

import math
from collections.abc import Mapping

import pandas as pd

from leakpipe.randomness import derive_seed
from leakpipe.tables.statistics import bootstrap_mean
from leakpipe.tables.wording import count_sample


def describe_reading(rows: pd.DataFrame, defenses: Mapping[str, str]) -> str:
    """One sentence on how much of the text in one client's images can be read.

    Args:
        rows: Rows of the leakage table of one attack on one client.
        defenses: What each defence is called, in the order that they are spoken of.

    Returns:
        The sentence; empty where no image has text.
    """
    written = rows[rows["text_accuracy"].notna()]
    if written.empty:
        return ""
    groups = {text: written[written["defense"] == name] for name, text in defenses.items()}
    shares = [f"{_write_share(group, text)} ({text})" for text, group in groups.items() if len(group)]
    before, chance = (_percent(written[column]) for column in ("text_accuracy_prior", "text_chance"))
    sample = count_sample(written, "image", "seed", "round")
    brackets = "; in brackets: 95 % intervals over seeds" if "[" in "".join(shares) else ""
    return (
        f"Of the characters burned into its images, a reader who knows font and place reads {', '.join(shares)}; "
        f"in the prior image {before}, by chance {chance} ({sample}{brackets})."
    )


def _write_share(rows: pd.DataFrame, text: str) -> str:
    """`97 % [91, 100]`; no interval for fewer than three seeds."""
    low, high = bootstrap_mean(rows["text_accuracy"], clusters=rows["seed"], seed=derive_seed("text interval", text))
    return _percent(rows["text_accuracy"]) + ("" if math.isnan(low) else f" [{100 * low:.0f}, {100 * high:.0f}]")


def _percent(shares: pd.Series) -> str:
    return f"{100 * shares.mean():.0f}\u00a0%"
