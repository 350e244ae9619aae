"""Files of a data set and of its split. Reading them needs no torch."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from leakpipe.data.images import LabeledImages
from leakpipe.data.partition import Split
from leakpipe.data.phantom import BurnedText
from leakpipe.errors import LeakpipeError
from leakpipe.files.storage import (
    read_arrays,
    read_json,
    require_array,
    require_seed,
    sidecar_path,
    write_arrays,
    write_json,
)

DATASET = "leakpipe/dataset"


def save_dataset(path: Path, dataset: LabeledImages) -> None:
    """Writes a data set at the size it is used at."""
    arrays = {"images": dataset.images, "labels": dataset.labels}
    texts = {"texts": [[asdict(text) for text in held] for held in dataset.texts]} if dataset.texts else {}
    names = {"names": list(dataset.names)} if dataset.names else {}
    notes = {"notes": list(dataset.notes)} if dataset.notes else {}
    write_arrays(path, DATASET, arrays, {"classes": list(dataset.classes), **texts, **names, **notes})


def load_dataset(path: Path) -> LabeledImages:
    """Reads what `save_dataset` wrote; `LeakpipeError` names the field that is wrong."""
    arrays, metadata = read_arrays(path, DATASET)
    sidecar = sidecar_path(path)
    classes = _require_names(sidecar, "classes", metadata.get("classes"))
    images, labels = require_array(path, arrays, "images", 4, 5), require_array(path, arrays, "labels", 1, 2)
    if images.dtype != np.float32 or images.size == 0 or images.min() < 0 or images.max() > 1:
        raise LeakpipeError(f"{path}: tensor 'images': expected float32 in [0, 1]")
    several = labels.ndim > 1
    most, width = (1, labels.shape[1]) if several else (len(classes) - 1, len(classes))
    proper = labels.dtype == np.int64 and len(labels) == len(images) and width == len(classes)
    if not proper or labels.min() < 0 or labels.max() > most:
        each = f"{len(classes)} for each image" if several else "one for each image"
        raise LeakpipeError(f"{path}: tensor 'labels': expected int64 from 0 to {most}, {each}")
    notes = _require_names(sidecar, "notes", metadata.get("notes", []))
    names = _require_names(sidecar, "names", metadata.get("names", []), len(images))
    texts = _require_list(sidecar, "texts", metadata.get("texts", []), len(images))
    for number, held in enumerate(texts):
        try:
            texts[number] = tuple(BurnedText(**text) for text in held)
            for text in texts[number]:
                text.cut_cells(images[number])
        except (TypeError, LeakpipeError) as error:
            raise LeakpipeError(f"{sidecar}: metadata.texts.{number}: {error}") from error
    return LabeledImages(images, labels, classes, tuple(texts), names, notes)


def _require_names(path: Path, field: str, found: object, length: int | None = None) -> tuple[str, ...]:
    names = _require_list(path, field, found, length)
    if not all(isinstance(name, str) for name in names):
        raise LeakpipeError(f"{path}: metadata.{field}: {str(names)[:60]}, expected a list of names")
    return tuple(names)


def _require_list(path: Path, field: str, found: object, length: int | None = None) -> list[Any]:
    if not isinstance(found, list):
        raise LeakpipeError(f"{path}: metadata.{field}: {found!r}, expected a list")
    if length is not None and len(found) not in (0, length):
        raise LeakpipeError(f"{path}: metadata.{field}: {len(found)} entries, expected one for each of {length} images")
    return found


def save_split(path: Path, split: Split, *, seed: int) -> None:
    """Writes the split of one seed as JSON."""
    write_json(path, {"seed": seed, **split.to_json()})


def load_split(path: Path, *, images: int | None = None) -> tuple[Split, int]:
    """Reads a split and its seed; `LeakpipeError` if it is none, or of a data set with more than `images` images."""
    content = read_json(path)
    split = Split.from_json(content, source=str(path))
    largest = max((index for part in (*split.clients.values(), *split.parts()) for index in part), default=-1)
    if images is not None and largest >= images:
        raise LeakpipeError(f"{path}: has image {largest}, expected numbers below {images}, of this data set's images")
    return split, require_seed(path, content)
