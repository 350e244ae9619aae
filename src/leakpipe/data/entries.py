"""What a registered data set is: its facts, what it holds, how to load it."""

from collections.abc import Callable
from dataclasses import dataclass

from leakpipe.data.images import LabeledImages
from leakpipe.params.data import ImagesParams


@dataclass(frozen=True)
class Contents:
    """What a data set holds, known before it is loaded.

    Attributes:
        classes: Class names; label i means `classes[i]`.
        images: Images in all.
        channels: 1 (gray) or 3.
    """

    classes: tuple[str, ...]
    images: int
    channels: int = 1


@dataclass(frozen=True)
class Dataset:
    """A data set's facts and its loader.

    Attributes:
        contents: `contents(params)` says what it holds, None where that is not known before it is loaded (its
            files are not there). Cheap: it is asked whenever an experiment is planned.
        load: `load(params)` returns its images at `params.image_size`.
    """

    source: str
    licence: str
    citation: str
    contents: Callable[[ImagesParams], Contents | None]
    load: Callable[[ImagesParams], LabeledImages]
