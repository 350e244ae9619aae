"""How far running attacks have come, read from their checkpoints; needs no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leakpipe.errors import LeakpipeError
from leakpipe.files.storage import read_json

CHECKPOINT = "leakpipe/checkpoint"
CHECKPOINTS_FOLDER = Path(".leakpipe/checkpoints")  # where the pipeline's attacks are saved, by experiment


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
    found = [_read(path) for path in sorted(folder.rglob("*.json"))]
    return [progress for progress in found if progress and progress.curves and "experiment" in progress.labels]


def _read(path: Path) -> Progress | None:
    try:
        content, saved = read_json(path), path.stat().st_mtime_ns // 1_000_000
    except (LeakpipeError, OSError):
        return None
    if content.get("kind") != CHECKPOINT:
        return None
    metadata = content["metadata"]
    curves = dict(metadata["curves"])
    steps = [int(step) for step in curves.pop("iteration", [])]
    named = {f"{path.stem}/{name}": list(zip(steps, values, strict=True)) for name, values in curves.items()}
    return Progress(metadata.get("labels", {}), named, saved)
