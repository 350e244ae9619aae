"""The file an attack writes: reconstructed images and which cell they are of. Reading it needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from leakpipe.errors import LeakpipeError
from leakpipe.files.storage import read_arrays, require_array, require_cell, require_whole, sidecar_path, write_arrays

RECONSTRUCTION = "leakpipe/reconstruction"


def save_reconstruction(
    path: Path,
    images: np.ndarray,
    *,
    labels: np.ndarray,
    prior: np.ndarray,
    cell: Mapping[str, Any],
    iterations: int,
    companions: np.ndarray | None = None,
) -> None:
    """Write reconstructed images and the prior images they are judged against.

    Args:
        images: float32 of shape (images, channels, height, width) in [0, 1].
        labels: int64 of shape (images,): class that the attack took each image to have; of several labels 0 or 1 for
            each class, shape (images, classes).
        prior: Same shape as `images`: prior image of each.
        cell: experiment, defense, seed, round, client, attack.
        iterations: Optimiser steps taken.
        companions: Images that were searched for the other clients of an aggregate; None where it is none.
    """
    metadata = {"cell": dict(cell), "iterations": iterations}
    arrays = {"images": images, "labels": labels, "prior": prior}
    if companions is not None:
        arrays["companions"] = companions
    write_arrays(path, RECONSTRUCTION, arrays, metadata)


@dataclass(frozen=True)
class StoredReconstruction:
    """A reconstruction as `save_reconstruction` wrote it."""

    images: np.ndarray
    labels: np.ndarray
    prior: np.ndarray
    cell: Mapping[str, Any]
    iterations: int
    companions: np.ndarray | None = None

    @property
    def candidates(self) -> np.ndarray:
        """All images that were searched, the attacked client's first.

        In an aggregate nothing tells which client an image is of: one of the attacked client's may have come out as
        another's, and counts as rebuilt all the same.
        """
        return self.images if self.companions is None else np.concatenate([self.images, self.companions])


def load_reconstruction(path: Path) -> StoredReconstruction:
    """Reads a reconstruction; `LeakpipeError` names the file whose content is not one."""
    arrays, metadata = read_arrays(path, RECONSTRUCTION)
    images, prior = (require_array(path, arrays, part, 4, 5) for part in ("images", "prior"))
    labels = require_array(path, arrays, "labels", 1, 2)
    companions = require_array(path, arrays, "companions", 4, 5) if "companions" in arrays else None
    if images.shape != prior.shape or len(images) != len(labels):
        raise LeakpipeError(
            f"{path}: images {images.shape}, prior {prior.shape} and labels {labels.shape} do not belong together"
        )
    try:
        return StoredReconstruction(
            images, labels, prior, require_cell(metadata["cell"]), require_whole(metadata["iterations"]), companions
        )
    except (KeyError, TypeError, ValueError) as error:
        raise LeakpipeError(f"{sidecar_path(path)}: metadata does not describe a reconstruction: {error!r}") from error
