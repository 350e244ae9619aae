"""Any folder of class folders with PNG, JPEG, TIFF or DICOM images."""

from pathlib import Path

from leakpipe.data.datalists import listed_images
from leakpipe.data.entries import Contents, Dataset
from leakpipe.data.folders import ImageFolder, find_root, list_images, load_images
from leakpipe.data.images import LabeledImages
from leakpipe.errors import LeakpipeError
from leakpipe.params.data import ImagesParams


def _list(root: Path, params: ImagesParams) -> ImageFolder:
    folders = (path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    classes = params.classes or tuple(sorted(folders))
    if len(classes) < 2:
        raise LeakpipeError(f"{root}: has {len(classes)} class folders, expected at least two")
    return list_images(root, classes)


def _contents(params: ImagesParams) -> Contents | None:
    root = find_root(params, "")
    if not root.is_dir():
        return None
    folder = _list(root, params)
    images = min(len(folder.names), params.images or len(folder.names))
    return Contents(folder.classes, images, channels=3 if params.channels == "color" else 1)


def _load(params: ImagesParams) -> LabeledImages:
    root = find_root(params, "")
    if not root.is_dir():
        raise LeakpipeError(f"{root}: the folder of data set 'image-folder' (data.root) is missing")
    return load_images(_list(root, params), params, color=params.channels == "color", kept=listed_images(params))


IMAGE_FOLDER = Dataset(
    source="a folder of your own: <root>/<class>/**, PNG, JPEG, TIFF or DICOM",
    licence="yours to know",
    citation="yours to give",
    contents=_contents,
    load=_load,
)
