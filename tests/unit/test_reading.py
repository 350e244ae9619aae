"""The report's sentence on burned-in text says what the table holds, and nothing where there is no text."""

import numpy as np
import pandas as pd

from leakpipe.report.reading import describe_reading

DEFENSES = {"none": "no noise", "loud": "σ₀ = 5", "unused": "σ₀ = 9"}


def rows(*, seeds: int) -> pd.DataFrame:
    """Read whole by every seed without noise, by some not at all with it."""
    return pd.DataFrame(
        [
            {
                "defense": defense,
                "seed": seed,
                "round": 1,
                "image": seed,
                "text_accuracy": 1.0 if defense == "none" else 0.1 * seed,
                "text_accuracy_prior": 0.2,
                "text_chance": 0.05,
            }
            for defense in ("loud", "none")
            for seed in range(seeds)
        ]
    )


def test_it_says_what_is_read_under_each_defence() -> None:
    assert describe_reading(rows(seeds=3), DEFENSES).replace("\u00a0", " ") == (
        "Of the characters burned into its images, a reader who knows font and place reads 100 % [100, 100] "
        "(no noise), 10 % [0, 20] (σ₀ = 5); in the prior image 20 %, by chance 5 % "
        "(3 images, 3 seeds, 1 round; in brackets: 95 % intervals over seeds)."
    )


def test_two_seeds_have_no_interval() -> None:
    sentence = describe_reading(rows(seeds=2), DEFENSES)
    assert "100\u00a0% (no noise), 5\u00a0% (σ₀ = 5)" in sentence
    assert "interval" not in sentence


def test_without_text_it_says_nothing() -> None:
    assert describe_reading(rows(seeds=3).assign(text_accuracy=np.nan), DEFENSES) == ""
