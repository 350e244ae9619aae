"""Data sets of image files: their folders, the images in them, the choice of those to load; data set `image-folder`.

Nothing outside a data set's folder is read: a link that leaves it is refused.
"""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from leakpipe.data.datalists import listed_images
from leakpipe.data.images import Contents, Dataset, LabeledImages
from leakpipe.errors import LeakpipeError
from leakpipe.files.quoting import as_path
from leakpipe.params.data import ImagesParams
from leakpipe.randomness import derive_seed

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm")


def data_folder() -> Path:
    """Returns the folder of data sets: environment variable LEAKPIPE_DATA, or `data` in the current folder."""
    return as_path(os.environ.get("LEAKPIPE_DATA") or "data")


def find_root(params: ImagesParams, default: str) -> Path:
    """Returns `data.root`, or `default` in the folder of data sets; the folder may be missing."""
    return as_path(params.root) if params.root else data_folder() / default


@dataclass(frozen=True)
class ImageFolder:
    """The image files of a folder that holds one folder per class.

    Attributes:
        classes: Class names by label.
        names: Paths relative to `root`, with `/`, sorted by class and then by name.
        labels: Label of each image.
    """

    root: Path
    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: tuple[int, ...]


def list_images(root: Path, classes: Sequence[str], *, inside: str = "") -> ImageFolder:
    """Lists the images in `<root>/<class>/<inside>`, at any depth; hidden and other files are ignored.

    Raises:
        LeakpipeError: A class has no folder or no image, or a link leads out of `root` or to a folder.
    """
    names: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        folder = root / name / inside
        if not folder.is_dir():
            raise LeakpipeError(f"{folder}: the folder of class {name!r} is missing")
        found = sorted(path.relative_to(root).as_posix() for path in _walk(root, folder))
        if not found:
            raise LeakpipeError(f"{folder}: class {name!r} is empty, expected images ({', '.join(SUFFIXES)})")
        names += found
        labels += [label] * len(found)
    return ImageFolder(root, tuple(classes), tuple(names), tuple(labels))


def _walk(root: Path, folder: Path) -> list[Path]:
    _refuse_link_out(root, folder)
    found: list[Path] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            path = Path(entry.path)
            if entry.name.startswith("."):
                continue
            if entry.is_symlink():
                _refuse_link_out(root, path)
                if entry.is_dir():
                    raise LeakpipeError(f"{path}: links to folders are not followed; put the images themselves there")
            if entry.is_dir():
                found += _walk(root, path)
            elif path.suffix.lower() in SUFFIXES:
                found.append(path)
    return found


def _refuse_link_out(root: Path, path: Path) -> None:
    if not path.resolve().is_relative_to(root.resolve()):
        raise LeakpipeError(f"{path}: leads out of the data folder {root} to {path.resolve()}")


def choose_images(labels: Sequence[int], limit: int | None, *, kept: Collection[int] = ()) -> list[int]:
    """Chooses at most `limit` images, as balanced over the classes as possible, always the same ones.

    Args:
        labels: Labels of all images.
        limit: None chooses all.
        kept: Indices that are chosen regardless of balance.

    Returns:
        Indices in ascending order.

    Raises:
        LeakpipeError: More images are kept than `limit` allows.
    """
    if limit is None or limit >= len(labels):
        return list(range(len(labels)))
    if len(kept) > limit:
        raise LeakpipeError(f"data.images: {limit} is fewer than the {len(kept)} images that data.datalists name")
    shuffled = np.random.default_rng(derive_seed("images")).permutation(len(labels))
    turns: dict[int, int] = {}
    queue: list[tuple[bool, int, int, int]] = []
    for index in sorted(map(int, shuffled), key=lambda index: index not in kept):  # stable: the rest stays shuffled
        turn = turns[labels[index]] = turns.get(labels[index], 0) + 1
        queue.append((index not in kept, turn, labels[index], index))
    return sorted(index for *_, index in sorted(queue)[:limit])


def load_images(folder: ImageFolder, params: ImagesParams, *, color: bool, kept: Collection[str] = ()) -> LabeledImages:
    """Reads the chosen images of a folder.

    Args:
        color: Whether to return three channels instead of one.
        kept: Names of images that are loaded regardless of `params.images`.

    Raises:
        LeakpipeError: An image cannot be read; the message names it.
    """
    from leakpipe.data.image_files import read_image

    wanted = set(kept)
    chosen = choose_images(
        folder.labels, params.images, kept={index for index, name in enumerate(folder.names) if name in wanted}
    )
    images = np.empty((len(chosen), 3 if color else 1, params.image_size, params.image_size), np.float32)
    for position, index in enumerate(chosen):
        images[position] = read_image(folder.root / folder.names[index], size=params.image_size, color=color)
    labels = np.array([folder.labels[index] for index in chosen], dtype=np.int64)
    names = tuple(folder.names[index] for index in chosen)
    return LabeledImages(images, labels, folder.classes, names=names)


def _list_class_folders(root: Path, params: ImagesParams) -> ImageFolder:
    folders = (path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    classes = params.classes or tuple(sorted(folders))
    if len(classes) < 2:
        raise LeakpipeError(f"{root}: has {len(classes)} class folders, expected at least two")
    return list_images(root, classes)


def _contents(params: ImagesParams) -> Contents | None:
    root = find_root(params, "")
    if not root.is_dir():
        return None
    folder = _list_class_folders(root, params)
    images = min(len(folder.names), params.images or len(folder.names))
    return Contents(folder.classes, images, channels=3 if params.channels == "color" else 1)


def _load(params: ImagesParams) -> LabeledImages:
    root = find_root(params, "")
    if not root.is_dir():
        raise LeakpipeError(f"{root}: the folder of data set 'image-folder' (data.root) is missing")
    return load_images(
        _list_class_folders(root, params), params, color=params.channels == "color", kept=listed_images(params)
    )


IMAGE_FOLDER = Dataset(
    source="a folder of your own: <root>/<class>/**, PNG, JPEG, TIFF or DICOM",
    licence="that of your images",
    citation="that of your images",
    contents=_contents,
    load=_load,
)
