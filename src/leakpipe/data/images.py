"""The data set: its images in memory, and the entry that describes and loads it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from leakpipe.data.phantom import BurnedText
from leakpipe.params.data import ImagesParams

NO_LABEL = "none"  # of the classes


@dataclass(frozen=True)
class LabeledImages:
    """Images with their labels.

    Attributes:
        images: float32 of shape (N, channels, height, width) in [0, 1], of volumes (N, 1, depth, height, width).
        labels: int64 of shape (N,); label i means `classes[i]`. Where an image may have several labels, 0 or 1 for each
            class, shape (N, classes).
        classes: Class names by label.
        texts: Text burned into each image; empty if no image has any.
        names: Path of each image in the data set's folder, with `/`; empty if the images are not files.
        notes: Sentences on what was not read, or may have been read otherwise than meant.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    texts: tuple[tuple[BurnedText, ...], ...] = ()
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def strata(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """Classes that splits are balanced over, of every image, and names; of several labels the first counts."""
        if self.labels.ndim == 1:
            return self.labels, self.classes
        first = np.where(self.labels.any(axis=1), self.labels.argmax(axis=1), len(self.classes))
        return first, (*self.classes, NO_LABEL)

    def texts_of(self, image: int) -> tuple[BurnedText, ...]:
        """Returns the texts burned into one image."""
        return self.texts[image] if self.texts else ()


@dataclass(frozen=True)
class Contents:
    """The contents of a data set, known before it is loaded.

    Attributes:
        classes: Class names by label.
        images: Number of images.
        channels: 1 (gray) or 3.
        axes: 2 of images, 3 of volumes, which are cubes.
        multi_label: Whether an image may have several labels, or none.
    """

    classes: tuple[str, ...]
    images: int
    channels: int = 1
    axes: int = 2
    multi_label: bool = False


@dataclass(frozen=True)
class Dataset:
    """A data set's facts and its loader.

    Attributes:
        contents: `contents(params)` returns what the data set holds, or None if only loading tells (because its files
            are missing). It must be cheap: it is called whenever an experiment is planned.
        load: `load(params)` returns the images at `params.image_size`.
    """

    source: str
    licence: str
    citation: str
    contents: Callable[[ImagesParams], Contents | None]
    load: Callable[[ImagesParams], LabeledImages]
