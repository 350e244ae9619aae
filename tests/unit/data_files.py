"""Files of data sets, made for the tests of their loaders."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from leakpipe.params.data import ImagesParams


def write_image(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_folder(root: Path, counts: dict[str, int]) -> Path:
    """A folder of class folders with gray PNG of 20×20 pixels: `<class>/<class>-<number from 1>.png`."""
    for label, (name, count) in enumerate(counts.items()):
        for number in range(1, count + 1):
            write_image(root / name / f"{name.split('/')[0]}-{number}.png", noise(20, 20, seed=100 * label + number))
    return root


def of_folder(root: Path, **changes: Any) -> ImagesParams:
    return ImagesParams.model_validate({"dataset": "image-folder", "image_size": 16, "root": str(root), **changes})
