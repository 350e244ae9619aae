"""Registered data sets: what they are, where they come from, and how to load them.

Loading imports its library only when called, so that the registry is cheap to read.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from leakpipe.data import phantom
from leakpipe.data.images import LabeledImages
from leakpipe.params_data import ImagesParams
from leakpipe.registry import Registry


@dataclass(frozen=True)
class Contents:
    """What a data set holds, known before it is loaded.

    Attributes:
        classes: Class names; label i means `classes[i]`.
        images: Images in all.
    """

    classes: tuple[str, ...]
    images: int


@dataclass(frozen=True)
class Dataset:
    """A data set's facts and its loader.

    Attributes:
        contents: `contents(params)` says what it holds, None where that is not known before it is loaded.
        load: `load(params)` returns its images at `params.image_size`.
    """

    source: str
    licence: str
    citation: str
    contents: Callable[[ImagesParams], Contents | None]
    load: Callable[[ImagesParams], LabeledImages]


DATASETS: Registry[Dataset] = Registry("data set")


LFW_FACES = Contents(classes=("face", "background"), images=200)


def _load_lfw_faces(params: ImagesParams) -> LabeledImages:
    from skimage.data import lfw_subset
    from skimage.transform import resize

    size = params.image_size
    originals = lfw_subset()
    images = np.stack([resize(image, (size, size), order=1) for image in originals])
    labels = np.repeat(np.array([0, 1], dtype=np.int64), 100)
    return LabeledImages(images[:, None].clip(0, 1).astype(np.float32), labels, LFW_FACES.classes)


DATASETS.add(
    "lfw-faces",
    Dataset(
        source="skimage.data.lfw_subset: 200 gray images of 25×25 pixels, shipped with scikit-image",
        licence="research use, as Labeled Faces in the Wild",
        citation=(
            "Huang, Ramesh, Berg, Learned-Miller: Labeled Faces in the Wild: A Database for Studying Face "
            "Recognition in Unconstrained Environments. University of Massachusetts, Amherst, TR 07-49, 2007."
        ),
        contents=lambda _params: LFW_FACES,
        load=_load_lfw_faces,
    ),
)


def _load_phantom(params: ImagesParams) -> LabeledImages:
    from leakpipe.data.phantom.generate import make_phantoms

    return make_phantoms(_count_phantoms(params), params.image_size, burned_text=params.burned_text)


def _count_phantoms(params: ImagesParams) -> int:
    assert params.images is not None  # params_data fills in the default
    return params.images


DATASETS.add(
    "cxr-phantom",
    Dataset(
        source="made by leakpipe.data.phantom: chest radiographs of patients who do not exist, from a seed at any size",
        licence="Apache-2.0, as leakpipe",
        citation="leakpipe (see CITATION.cff)",
        contents=lambda params: Contents(classes=phantom.CLASSES, images=_count_phantoms(params)),
        load=_load_phantom,
    ),
)
