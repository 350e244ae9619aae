"""Names of defences for readers, and how much noise they add. Importing this needs no torch."""

from collections.abc import Mapping, Sequence
from typing import Any


def noise_multipliers(defenses: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, float]:
    """Returns σ0 of every defence that is one Gaussian step on all values (or none: 0), smallest first.

    Args:
        defenses: The `defenses` section of the parameters: steps by name.
    """
    found: dict[str, float] = {}
    for name, steps in defenses.items():
        if not steps:
            found[name] = 0.0
        elif len(steps) == 1 and steps[0].get("kind") == "gaussian" and steps[0].get("targets", "all") == "all":
            found[name] = float(steps[0]["sigma0"])
    return dict(sorted(found.items(), key=lambda item: item[1]))


def name_defenses(defenses: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, str]:
    """Returns what to call each defence: first by σ0, smallest first, then those without σ0 by their own name."""
    multipliers = noise_multipliers(defenses)
    named = {name: f"σ₀\u00a0=\u00a0{value:g}" if value else "no noise" for name, value in multipliers.items()}
    return named | {name: name for name in defenses if name not in multipliers}
