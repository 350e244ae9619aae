"""Registered data sets: what they are, where they come from, and how to load them.

Loading imports its library only when called, so that the registry is cheap to read.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from leakpipe.registry import Registry


@dataclass(frozen=True)
class Dataset:
    """A data set's facts and its loader.

    Attributes:
        classes: Class names; label i means `classes[i]`.
        images: Images in all.
        load: `load(image_size)` returns images, float32 of shape (N, channels, image_size, image_size)
            in [0, 1], and labels, int64 of shape (N,).
    """

    classes: tuple[str, ...]
    images: int
    source: str
    licence: str
    citation: str
    load: Callable[[int], tuple[np.ndarray, np.ndarray]]


DATASETS: Registry[Dataset] = Registry("data set")


def _load_lfw_faces(image_size: int) -> tuple[np.ndarray, np.ndarray]:
    from skimage.data import lfw_subset
    from skimage.transform import resize

    originals = lfw_subset()
    images = np.stack([resize(image, (image_size, image_size), order=1) for image in originals])
    labels = np.repeat(np.array([0, 1], dtype=np.int64), 100)
    return images[:, None].clip(0, 1).astype(np.float32), labels


DATASETS.add(
    "lfw-faces",
    Dataset(
        classes=("face", "background"),
        images=200,
        source="skimage.data.lfw_subset: 200 gray images of 25×25 pixels, shipped with scikit-image",
        licence="research use, as Labeled Faces in the Wild",
        citation=(
            "Huang, Ramesh, Berg, Learned-Miller: Labeled Faces in the Wild: A Database for Studying Face "
            "Recognition in Unconstrained Environments. University of Massachusetts, Amherst, TR 07-49, 2007."
        ),
        load=_load_lfw_faces,
    ),
)
