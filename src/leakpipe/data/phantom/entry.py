"""The entry of `cxr-phantom`. It is cheap to import, because images are drawn by its loader only."""

from leakpipe.data.images import Contents, Dataset, LabeledImages
from leakpipe.data.phantom import CLASSES
from leakpipe.params.data import ImagesParams


def _load_phantom(params: ImagesParams) -> LabeledImages:
    from leakpipe.data.phantom.generate import make_phantoms

    images, labels, texts = make_phantoms(_count_phantoms(params), params.image_size, burned_text=params.burned_text)
    return LabeledImages(images, labels, CLASSES, texts)


def _count_phantoms(params: ImagesParams) -> int:
    assert params.images is not None  # `params.data` fills in the default
    return params.images


CXR_PHANTOM = Dataset(
    source="made by leakpipe.data.phantom: chest radiographs of patients who do not exist, from a seed at any size",
    licence="Apache-2.0, as leakpipe",
    citation="leakpipe (see CITATION.cff)",
    contents=lambda params: Contents(classes=CLASSES, images=_count_phantoms(params)),
    load=_load_phantom,
)
