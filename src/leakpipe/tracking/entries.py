"""What MLflow takes: flat names of allowed characters, numbers apart from texts, bounded lengths, batches."""

import json
import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

# MLflow (3, and servers since 2.8) takes 1000 entries a batch, 100 of them parameters, and values this long.
METRICS_PER_BATCH, PARAMS_PER_BATCH = 900, 100
NAME_LENGTH, PARAM_LENGTH, TAG_LENGTH = 250, 6000, 5000


def log_batches(
    client: "MlflowClient", run_id: str, points: Sequence[tuple[str, float, int, int]], params: Mapping[str, str]
) -> None:
    """Log (name, value, time in ms, step) points and parameters in as few batches as MLflow allows."""
    from mlflow.entities import Metric, Param

    metrics = [Metric(clean_name(name), float(value), when, int(step)) for name, value, when, step in points]
    settings = [Param(name, value) for name, value in params.items()]
    chunks = zip_longest(_chunk(metrics, METRICS_PER_BATCH), _chunk(settings, PARAMS_PER_BATCH), fillvalue=())
    for some_metrics, some_params in chunks:
        client.log_batch(run_id, metrics=some_metrics, params=some_params)


def _chunk(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def log_artifacts(client: "MlflowClient", run_id: str, paths: Sequence[Path], base: Path | None) -> list[str]:
    """Upload files, below `base` in their own folders; returns a note for each that is missing."""
    notes = []
    for path in paths:
        if not path.exists():
            notes.append(f"artifact {path} is missing and was left out")
            continue
        folder = path.absolute().parent.relative_to(base).as_posix() if base else "."
        client.log_artifact(run_id, str(path), None if folder == "." else folder)
    return notes


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} → {"a.b": 1}; lists and empty mappings are values."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def split_numbers(flat: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, str]]:
    """Numbers, and everything else as text; None is nothing."""
    numbers = {name: float(value) for name, value in flat.items() if isinstance(value, int | float)}
    texts = {
        clean_name(name): _as_text(value) for name, value in flat.items() if name not in numbers and value is not None
    }
    return numbers, texts


def as_tags(values: Mapping[str, Any]) -> dict[str, str]:
    """Values as text, named and cut as MLflow takes them."""
    return {clean_name(str(name)): str(value)[:TAG_LENGTH] for name, value in values.items()}


def as_params(params: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    """Flat parameters as text, cut to what MLflow takes; and a note for each that was cut."""
    texts = {clean_name(name): _as_text(value) for name, value in flatten(params).items()}
    notes = [
        f"parameter {name} is cut to {PARAM_LENGTH} characters" for name in texts if len(texts[name]) > PARAM_LENGTH
    ]
    return {name: text[:PARAM_LENGTH] for name, text in texts.items()}, notes


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def clean_name(name: str) -> str:
    """`name` with the characters that MLflow allows, and no longer than it allows."""
    allowed = re.sub(r"[^\w.\- /]", "_", name)
    return re.sub(r"/(\.*/)+", "/", allowed).strip("/. ")[:NAME_LENGTH] or "_"
