"""Files of a federation: global models and clients' updates, checked against the architecture when loaded."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from leakpipe.client.local_update import LocalSettings
from leakpipe.client.update import ClientUpdate
from leakpipe.errors import LeakpipeError
from leakpipe.files.storage import (
    read_arrays,
    require_cell,
    require_number,
    require_object,
    require_whole,
    require_wholes,
    sidecar_path,
    write_arrays,
)
from leakpipe.models.custom import build_custom
from leakpipe.models.state import ModelState, build_module, shared_part
from leakpipe.params.models import ArchitectureParams
from leakpipe.params.training import TrainingParams

MODEL, UPDATE = "leakpipe/model", "leakpipe/update"
WEIGHTS, STATISTICS, EXACT = "weights/", "statistics/", "exact_statistics/"
WITHHELD = "withheld"
Labels = list[int] | list[list[int]]


@dataclass(frozen=True)
class CohortMember:
    """Another client whose update is in the same mean as the attacked one's (secure aggregation).

    Attributes:
        client: Its name.
        schedule: Positions of its images in each local step.
        labels: Class of each of its images, by position, or 0 or 1 for each class.
    """

    client: str
    schedule: list[list[int]]
    labels: Labels


@dataclass(frozen=True)
class StoredUpdate:
    """A client's update as the server holds it, and what a threat model may grant besides it.

    Attributes:
        update: What the client shared, or the mean that contains it.
        cell: Where the update comes from: experiment, defense, seed, round, client.
        schedule: Positions of the client's images in each local step.
        labels: Class of each of its images, by position, or 0 or 1 for each class.
        settings: How the client trained.
        exact_statistics: Differences of its running statistics before any defence; empty where they were not kept.
        cohort: The other clients whose updates are in the mean.
    """

    update: ClientUpdate
    cell: Mapping[str, Any]
    schedule: list[list[int]]
    labels: Labels
    settings: LocalSettings
    exact_statistics: Mapping[str, Tensor] = field(default_factory=dict)
    cohort: list[CohortMember] = field(default_factory=list)


def save_model(path: Path, state: ModelState, *, params: ArchitectureParams, classes: int, image_size: int) -> None:
    """Writes a global model: its tensors, and in the sidecar what its architecture is rebuilt from."""
    fields = set(ArchitectureParams.model_fields)
    architecture = params.model_dump(mode="json", include=fields, exclude_defaults=True)
    metadata = {"model": architecture, "classes": classes, "image_size": image_size}
    write_arrays(path, MODEL, _to_arrays(state.weights, state.statistics), metadata)


def save_custom_model(
    path: Path, state: ModelState, *, factory: str, arguments: Mapping[str, Any], dropout: bool = True
) -> None:
    """Writes a global model whose network `leakpipe.models.custom.build_custom` builds.

    Args:
        dropout: As `ModelState.of` takes it.
    """
    metadata = {"factory": factory, "arguments": dict(arguments), "dropout": dropout}
    write_arrays(path, MODEL, _to_arrays(state.weights, state.statistics), metadata)


def load_model(path: Path, *, factory: str | None = None) -> ModelState:
    """Reads a global model and checks every tensor's name and shape against its architecture.

    Args:
        factory: The network factory that the file may name, which then runs. A file that names another is refused:
            it could have any function called.
    """
    arrays, metadata = read_arrays(path, MODEL)
    if "factory" in metadata:
        if factory is None or metadata["factory"] != factory:
            raise LeakpipeError(
                f"{sidecar_path(path)}: metadata.factory: {metadata['factory']!r}, expected {factory!r}; pass it as "
                "--network if you trust it: it runs"
            )
        network = build_custom(factory, require_object(metadata["arguments"]))
        return _from_arrays(path, arrays, ModelState.of(network, dropout=metadata["dropout"] is True))
    try:
        params = ArchitectureParams.model_validate(metadata["model"])
        module = build_module(
            params, classes=require_whole(metadata["classes"]), image_size=require_whole(metadata["image_size"])
        )
    except (KeyError, TypeError, ValueError, RuntimeError, ValidationError) as error:
        raise LeakpipeError(f"{sidecar_path(path)}: metadata does not describe a model: {error!r}") from error
    return _from_arrays(path, arrays, ModelState.of(module))


def save_update(path: Path, stored: StoredUpdate) -> None:
    """Writes one client's update and what an attacker may be granted besides it."""
    metadata = {
        "cell": dict(stored.cell),
        "steps": stored.update.steps,
        "schedule": stored.schedule,
        "labels": stored.labels,
        "learning_rate": stored.settings.learning_rate,
        "batch_norm_momentum": stored.settings.batch_norm_momentum,
    }
    if training := stored.settings.training.model_dump(mode="json", exclude_defaults=True):
        metadata["training"] = training
    if not stored.update.statistics:
        metadata["statistics"] = WITHHELD
    if stored.update.removed:
        metadata["removed"] = sorted(stored.update.removed)
    if stored.cohort:
        metadata["companions"] = [vars(member) for member in stored.cohort]
    arrays = _to_arrays(stored.update.weights, stored.update.statistics)
    exact = {EXACT + name: value.cpu().numpy() for name, value in stored.exact_statistics.items()}
    write_arrays(path, UPDATE, {**arrays, **exact}, metadata)


def load_update(path: Path, state: ModelState) -> StoredUpdate:
    """Reads a client's update and checks it against the global model that it changes.

    Raises:
        LeakpipeError: A tensor is missing, unknown, of another shape or not finite, or the sidecar lacks a field.
    """
    arrays, metadata = read_arrays(path, UPDATE)
    granted = {name.removeprefix(EXACT): arrays.pop(name) for name in list(arrays) if name.startswith(EXACT)}
    removed = frozenset(map(str, metadata.get("removed", ())))
    shared = shared_part(state, (name.partition("/")[2] for name in arrays), removed=removed)
    if metadata.get("statistics") == WITHHELD:
        shared = shared.with_tensors(shared.weights, {})
    held = _from_arrays(path, arrays, shared)
    exact = {name: torch.from_numpy(granted[name]) for name in state.statistics if name in granted}
    try:
        return StoredUpdate(
            update=ClientUpdate(held.weights, held.statistics, require_whole(metadata["steps"]), removed),
            cell=require_cell(metadata["cell"]),
            schedule=_read_schedule(metadata["schedule"]),
            labels=_read_labels(metadata["labels"]),
            settings=LocalSettings(
                learning_rate=require_number(metadata["learning_rate"]),
                batch_norm_momentum=require_number(metadata["batch_norm_momentum"]),
                training=TrainingParams.model_validate(metadata.get("training", {})),
            ),
            exact_statistics=exact,
            cohort=[_read_member(entry) for entry in metadata.get("companions", [])],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LeakpipeError(f"{sidecar_path(path)}: metadata does not describe an update: {error!r}") from error


def _read_schedule(found: object) -> list[list[int]]:
    if not isinstance(found, list):
        raise TypeError(f"schedule: {str(found)[:40]!r}, expected a list of steps")
    return [list(require_wholes(step)) for step in found]


def _read_labels(found: object) -> Labels:
    if isinstance(found, list) and found and isinstance(found[0], list):
        rows = [list(require_wholes(row)) for row in found]
        if len({len(row) for row in rows}) > 1 or max(map(max, rows)) > 1:
            raise ValueError(f"labels: {str(found)[:60]}, expected 0 or 1 for each class, as many for each image")
        return rows
    return list(require_wholes(found))


def _read_member(entry: Mapping[str, Any]) -> CohortMember:
    """Reads a member of a cohort; raises `ValueError` if its schedule does not cover exactly its labelled images."""
    schedule, labels = _read_schedule(entry["schedule"]), _read_labels(entry["labels"])
    if not labels or {position for step in schedule for position in step} != set(range(len(labels))):
        found = f"schedule {schedule} of {len(labels)} labels"
        raise ValueError(f"companions: {entry['client']!r}: {found}, expected one or more, and the positions of all")
    return CohortMember(str(entry["client"]), schedule, labels)


def _to_arrays(weights: Mapping[str, Tensor], statistics: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    arrays = {WEIGHTS + name: value.cpu().numpy() for name, value in weights.items()}
    return arrays | {STATISTICS + name: value.cpu().numpy() for name, value in statistics.items()}


def _from_arrays(path: Path, arrays: Mapping[str, np.ndarray], like: ModelState) -> ModelState:
    """Checks names, shapes and kind of all tensors against those of `like`, whose values are not read."""
    expected = {f"{WEIGHTS}{name}": tuple(value.shape) for name, value in like.weights.items()}
    expected |= {f"{STATISTICS}{name}": tuple(value.shape) for name, value in like.statistics.items()}
    for name, shape in expected.items():
        if name not in arrays:
            raise LeakpipeError(f"{path}: tensor {name!r} is missing; the model has it with shape {shape}")
        if arrays[name].shape != shape or arrays[name].dtype.kind != "f":
            found = f"{arrays[name].dtype.name} of shape {arrays[name].shape}"
            raise LeakpipeError(f"{path}: tensor {name!r} is {found}, expected floats of shape {shape}")
    for name in arrays:
        if name not in expected:
            raise LeakpipeError(f"{path}: tensor {name!r} is not one of the model's")
    return like.with_tensors(
        {name: torch.from_numpy(arrays[WEIGHTS + name]) for name in like.weights},
        {name: torch.from_numpy(arrays[STATISTICS + name]) for name in like.statistics},
    )
