"""A data set in memory."""

from dataclasses import dataclass

import numpy as np

from leakpipe.data.phantom.burned_text import BurnedText


@dataclass(frozen=True)
class LabeledImages:
    """Images, float32 (N, channels, height, width) in [0, 1]; labels, int64 (N,); class names by label.

    Attributes:
        texts: What is burned into each image; empty where none is into any.
        names: Path of each image in the data set's folder, with `/`; empty where images are no files.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    texts: tuple[tuple[BurnedText, ...], ...] = ()
    names: tuple[str, ...] = ()

    def texts_of(self, image: int) -> tuple[BurnedText, ...]:
        """What is burned into one image."""
        return self.texts[image] if self.texts else ()
