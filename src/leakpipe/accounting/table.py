"""The guarantees of all defences as a table."""

from collections.abc import Mapping, Sequence
from math import isinf
from typing import Any

import pandas as pd

from leakpipe.accounting.guarantees import guarantees
from leakpipe.params.federation import FederationParams

PRIVACY_COLUMNS = [
    "defense",
    "kind",
    "adversary",
    "unit",
    "guarantee",
    "epsilon",
    "delta",
    "rounds",
    "releases",
    "signal",
    "epsilon_if_sampled",
]


def tabulate_guarantees(
    defenses: Mapping[str, Sequence[Mapping[str, Any]]], federation: FederationParams, *, delta: float
) -> pd.DataFrame:
    """Tabulates the guarantees of all defences, in the order of the parameters.

    Args:
        defenses: The `defenses` section: steps by name.
        federation: Rounds and clients.
        delta: δ at which ε is computed.

    Returns:
        A table with `PRIVACY_COLUMNS`; infinite values (no guarantee, no bound) are left empty.
    """
    rows = [
        {
            "defense": name,
            "kind": " + ".join(step["kind"] for step in steps) or "none",
            "adversary": found.adversary,
            "unit": found.unit or None,
            "guarantee": found.sentence,
            "epsilon": _finite(found.epsilon),
            "delta": found.delta if found.unit else None,
            "rounds": federation.rounds,
            "releases": found.releases,
            "signal": _finite(found.signal),
            "epsilon_if_sampled": found.epsilon_if_sampled,
        }
        for name, steps in defenses.items()
        for found in guarantees(steps, federation, delta=delta)
    ]
    return pd.DataFrame(rows, columns=PRIVACY_COLUMNS)


def _finite(value: float) -> float | None:
    return None if isinf(value) else value
