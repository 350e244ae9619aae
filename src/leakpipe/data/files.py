"""Files of the data stage: the images and their split. Reading them needs no torch."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from leakpipe.data.images import LabeledImages
from leakpipe.data.partition import Split
from leakpipe.data.phantom.burned_text import BurnedText
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
    """Write a data set at the size it is used at."""
    arrays = {"images": dataset.images, "labels": dataset.labels}
    texts = {"texts": [[asdict(text) for text in held] for held in dataset.texts]} if dataset.texts else {}
    names = {"names": list(dataset.names)} if dataset.names else {}
    write_arrays(path, DATASET, arrays, {"classes": list(dataset.classes), **texts, **names})


def load_dataset(path: Path) -> LabeledImages:
    """Read what `save_dataset` wrote."""
    arrays, metadata = read_arrays(path, DATASET)
    classes = metadata.get("classes")
    if not isinstance(classes, list):
        raise LeakpipeError(f"{sidecar_path(path)}: metadata.classes: {classes!r}, expected a list of names")
    images, labels = require_array(path, arrays, "images", 4), require_array(path, arrays, "labels", 1)
    texts = _parse_texts(sidecar_path(path), metadata.get("texts", []), images)
    return LabeledImages(images, labels, tuple(classes), texts, _names(path, metadata, count=len(labels)))


def _parse_texts(path: Path, stored: Any, images: np.ndarray) -> tuple[tuple[BurnedText, ...], ...]:
    """What is burned into each image, or nothing at all; each text lies inside its image."""
    if not isinstance(stored, list) or len(stored) not in (0, len(images)):
        raise LeakpipeError(f"{path}: metadata.texts: expected a list for each of {len(images)} images")
    for number, held in enumerate(stored):
        try:
            for text in held:
                BurnedText(**text).cut_cells(images[number])
        except (TypeError, LeakpipeError) as error:
            raise LeakpipeError(f"{path}: metadata.texts.{number}: {error}") from error
    return tuple(tuple(BurnedText(**text) for text in held) for held in stored)


def save_split(path: Path, split: Split, *, seed: int) -> None:
    """Write the split of one seed as JSON."""
    write_json(path, {"seed": seed, **split.to_json()})


def load_split(path: Path) -> tuple[Split, int]:
    """Read a split and its seed."""
    content = read_json(path)
    return Split.from_json(content, source=str(path)), require_seed(path, content)


def _names(path: Path, metadata: dict[str, object], *, count: int) -> tuple[str, ...]:
    names = metadata.get("names", [])
    if not isinstance(names, list) or len(names) not in (0, count):
        raise LeakpipeError(f"{sidecar_path(path)}: metadata.names: expected the {count} paths of the images")
    return tuple(map(str, names))
