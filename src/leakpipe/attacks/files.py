"""The file an attack writes: reconstructed images and which cell they are of. Reading it needs no torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from leakpipe.storage import read_arrays, require_array, write_arrays

RECONSTRUCTION = "leakpipe/reconstruction"


def save_reconstruction(
    path: Path, images: np.ndarray, *, prior: np.ndarray, cell: Mapping[str, Any], iterations: int
) -> None:
    """Write reconstructed images and the prior images they are judged against.

    Args:
        images: float32 of shape (images, channels, height, width) in [0, 1].
        prior: Same shape: prior image of each.
        cell: experiment, defense, seed, round, client, attack.
        iterations: Optimiser steps taken.
    """
    metadata = {"cell": dict(cell), "iterations": iterations}
    write_arrays(path, RECONSTRUCTION, {"images": images, "prior": prior}, metadata)


def load_reconstruction(path: Path) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Read images, prior images and metadata (`cell`, `iterations`) as `save_reconstruction` wrote them."""
    arrays, metadata = read_arrays(path, RECONSTRUCTION)
    return require_array(path, arrays, "images", 4), require_array(path, arrays, "prior", 4), metadata
