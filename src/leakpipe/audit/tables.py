"""The conclusions of an audit, as rows of a table and as JSON."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from leakpipe.audit.assessment import Assessment, Attempt


def tabulate(assessments: Sequence[Assessment], attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
    """Returns a row for each attempt: what it took, what it explains, how similar it is, and what became of it."""
    by_cell = {(each.update, each.defense): each for each in assessments}
    rows = []
    for attempt in attempts:
        found = by_cell[attempt.update, attempt.defense]
        fields = {key: value for key, value in vars(attempt).items() if key not in ("images", "prior", "notes")}
        chosen = {"chosen": attempt is found.best, "nearest_truth": bool(found.scores) and attempt is found.strongest}
        rows.append({**fields, **found.similarity(attempt), **chosen, "word": found.word})
    return rows


def describe(found: Assessment) -> dict[str, Any]:
    """Returns what is written of an assessment, JSON-serialisable; numbers that do not exist are None.

    `chosen` is the attempt that explains most, `nearest_truth` the one most similar to the true images, each with its
    own numbers.
    """
    said = {
        "update": found.update,
        "defense": found.defense,
        "word": found.word,
        "why": found.why,
        "chosen": {**_of_attempt(found.best), **found.similarity(found.best)},
        "nearest_truth": {**_of_attempt(found.strongest), **found.similarity(found.strongest)}
        if found.scores
        else None,
        "agreement": found.agreement,
        "predicted": asdict(found.predicted),
        "leaked": found.leaked if found.scores else None,
        "images": len(found.best.images),
        "identified": found.identified,
        "identified_by": found.identified_by or None,
        "chance": found.chance,
        "likeness": found.likeness,
        "parts": found.parts,
    }
    return {key: _without_nan(value) for key, value in said.items()}


def _of_attempt(attempt: Attempt) -> dict[str, Any]:
    return {"attack": attempt.attack, "explained": attempt.explained}


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(each) for key, each in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
