"""The progress of running attacks, read from their checkpoints; needs no torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, ValidationError, field_validator

from leakpipe.errors import LeakpipeError
from leakpipe.files.storage import read_json

CHECKPOINT = "leakpipe/checkpoint"
CHECKPOINTS_FOLDER = Path(".leakpipe/checkpoints")  # where the pipeline's attacks are saved, by experiment


def to_hex(value: float) -> str:
    """Returns a number as text that reads back exactly; JSON has no infinity."""
    return value.hex() if math.isfinite(value) else "inf"


def _from_hex(text: object) -> float:
    if not isinstance(text, str):
        raise ValueError("expected a hexadecimal number")
    try:
        return math.inf if text == "inf" else float.fromhex(text)
    except OverflowError as error:
        raise ValueError(str(error)) from error


Exact = Annotated[float, BeforeValidator(_from_hex)]
Count = Annotated[int, Field(ge=0)]


class SavedSearch(BaseModel):
    """The contents of a checkpoint beside its tensors: fields of `leakpipe.attacks.search_state.SearchState`."""

    model_config = ConfigDict(strict=True)
    key: str
    labels: dict[str, str | int] = {}
    iteration: Count
    optimizer_start: Count
    best_objective: list[Exact]
    best_distance: list[Exact]
    start_distance: list[Exact]
    improved: list[bool]
    alive: list[bool]
    reached: Exact
    reference: Exact
    curves: dict[str, list[FiniteFloat]]
    notes: list[str]
    stopped: Literal["", "finished", "converged", "diverged"]

    @field_validator("curves")
    @classmethod
    def _have_the_same_points(cls, curves: dict[str, list[float]]) -> dict[str, list[float]]:
        points = [len(values) for values in curves.values()]
        if any(number != len(curves.get("iteration", [])) for number in points):
            raise ValueError(f"expected as many points as iterations, got {points}")
        return curves


@dataclass(frozen=True)
class Progress:
    """One search as it was last saved.

    Attributes:
        labels: What the job is for, as its run record will say.
        curves: Value of every term so far, named after the checkpoint ("round1/objective") as the run record will name
            them: name → [(iteration, value), …].
        saved: When it was saved, in milliseconds since 1970.
    """

    labels: Mapping[str, Any]
    curves: Mapping[str, Sequence[tuple[int, float]]]
    saved: int


def read_progress(folder: Path) -> list[Progress]:
    """All checkpoints of labelled experiments anywhere below `folder` that have a point of a curve by now.

    Attacks go on meanwhile: a checkpoint that is being removed or is none is passed over. So is one without the label
    `experiment`, which says where it belongs.
    """
    found = [_read(path) for path in sorted(folder.rglob("*.json")) if path.is_file()]
    return [progress for progress in found if progress and progress.curves and "experiment" in progress.labels]


def _read(path: Path) -> Progress | None:
    try:
        content, saved = read_json(path), path.stat().st_mtime_ns // 1_000_000
        if content.get("kind") != CHECKPOINT:
            return None
        search = SavedSearch.model_validate(content.get("metadata"))
    except (LeakpipeError, OSError, ValidationError):
        return None
    steps = [int(step) for step in search.curves.pop("iteration", [])]
    named = {f"{path.stem}/{name}": list(zip(steps, values, strict=True)) for name, values in search.curves.items()}
    return Progress(search.labels, named, saved)
