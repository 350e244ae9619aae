"""The entry of `cxr-phantom`. Cheap to import: drawing anything is left to who loads it."""

from leakpipe.data import phantom
from leakpipe.data.entries import Contents, Dataset
from leakpipe.data.images import LabeledImages
from leakpipe.params.data import ImagesParams


def _load_phantom(params: ImagesParams) -> LabeledImages:
    from leakpipe.data.phantom.generate import make_phantoms

    return make_phantoms(_count_phantoms(params), params.image_size, burned_text=params.burned_text)


def _count_phantoms(params: ImagesParams) -> int:
    assert params.images is not None  # params_data fills in the default
    return params.images


CXR_PHANTOM = Dataset(
    source="made by leakpipe.data.phantom: chest radiographs of patients who do not exist, from a seed at any size",
    licence="Apache-2.0, as leakpipe",
    citation="leakpipe (see CITATION.cff)",
    contents=lambda params: Contents(classes=phantom.CLASSES, images=_count_phantoms(params)),
    load=_load_phantom,
)
