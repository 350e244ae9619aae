"""A data set in memory."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LabeledImages:
    """Images, float32 (N, channels, height, width) in [0, 1]; labels, int64 (N,); class names by label.

    Attributes:
        names: Path of each image in the data set's folder, with `/`; empty where images are no files.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    names: tuple[str, ...] = ()
