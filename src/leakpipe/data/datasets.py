"""The registered data sets. docs/data-sets.md has a section on each.

Loaders import their libraries when called, so that reading the registry stays cheap.
"""

import numpy as np

from leakpipe.data.covid_radiography import COVID_RADIOGRAPHY
from leakpipe.data.findings_phantom import FINDINGS_PHANTOM
from leakpipe.data.folders import IMAGE_FOLDER
from leakpipe.data.images import Contents, Dataset, LabeledImages
from leakpipe.data.medmnist_sets import MEDMNIST
from leakpipe.data.phantom.entry import CXR_PHANTOM
from leakpipe.data.volume_phantom import VOLUME_PHANTOM
from leakpipe.params.data import ImagesParams
from leakpipe.registry import Registry

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
DATASETS.add("cxr-phantom", CXR_PHANTOM)
DATASETS.add("findings-phantom", FINDINGS_PHANTOM)
DATASETS.add("volume-phantom", VOLUME_PHANTOM)
DATASETS.add("covid-radiography", COVID_RADIOGRAPHY)
DATASETS.add("medmnist", MEDMNIST)
DATASETS.add("image-folder", IMAGE_FOLDER)
