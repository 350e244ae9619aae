"""Data sets of image files: their folders, the images in them, the choice of those to load; data set `image-folder`.

Nothing outside a data set's folder is read: a link that leaves it is refused.
"""

import os
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from leakpipe.data.datalists import listed_images
from leakpipe.data.images import Contents, Dataset, LabeledImages
from leakpipe.errors import LeakpipeError
from leakpipe.files.quoting import as_path
from leakpipe.params.data import ImagesParams
from leakpipe.randomness import derive_seed

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom")
HIDDEN, NO_FILE, OTHER = "hidden", "no regular file", "neither named as an image nor DICOM by content"
BESIDE_CLASSES = "beside the folders of classes"
NARROW = 0.1  # of the range from black to white: an image that uses less is reported


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
        passed_over: Files and hidden folders that are no images, by the reason.
    """

    root: Path
    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: tuple[int, ...]
    passed_over: Mapping[str, Sequence[str]]

    def describe_rest(self) -> str:
        """Returns a sentence that counts what was passed over; "" if nothing was."""
        reasons = [
            f"{len(names)} {reason} (first {min(names)!r})" for reason, names in self.passed_over.items() if names
        ]
        total = sum(map(len, self.passed_over.values()))
        return f"{self.root}: {total} files were passed over: {', '.join(reasons)}" if total else ""


def list_images(root: Path, classes: Sequence[str], *, inside: str = "") -> ImageFolder:
    """Lists the images in `<root>/<class>/<inside>`, at any depth, by their names or as DICOM by content.

    Raises:
        LeakpipeError: A class has no folder or no image, a folder cannot be read, a link leads out of `root` or to a
            folder, or a name holds control characters or is not Unicode.
    """
    names: list[str] = []
    labels: list[int] = []
    passed_over: dict[str, list[str]] = {reason: [] for reason in (HIDDEN, NO_FILE, OTHER)}
    for label, name in enumerate(classes):
        folder = root / name / inside
        if not folder.is_dir():
            raise LeakpipeError(f"{folder}: the folder of class {name!r} is missing")
        found = sorted(path.relative_to(root).as_posix() for path in _walk(root, folder, passed_over))
        if not found:
            raise LeakpipeError(f"{folder}: holds no image, expected files such as {', '.join(SUFFIXES)}")
        names += found
        labels += [label] * len(found)
    return ImageFolder(root, tuple(classes), tuple(names), tuple(labels), passed_over)


def _walk(root: Path, folder: Path, passed_over: Mapping[str, list[str]]) -> list[Path]:
    from leakpipe.data.image_files import is_dicom

    _refuse_link_out(root, folder)
    found: list[Path] = []
    for entry in _scan(folder):
        path = Path(entry.path)
        reason = HIDDEN if entry.name.startswith(".") else ""
        if not reason and entry.is_symlink():
            _refuse_link_out(root, path)
            if entry.is_dir():
                raise LeakpipeError(f"{path}: links to folders are not followed; put the images themselves there")
        if not reason and entry.is_dir():
            found += _walk(root, path, passed_over)
            continue
        reason = reason or ("" if entry.is_file() else NO_FILE)  # a pipe would be waited for
        reason = reason or ("" if path.suffix.lower() in SUFFIXES or is_dicom(path) else OTHER)
        if reason:
            passed_over[reason].append(path.relative_to(root).as_posix())
        else:
            found.append(path)
    return found


def _scan(folder: Path) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as listed:
            entries = list(listed)
    except OSError as error:
        raise LeakpipeError(f"{folder}: cannot be listed: {error.strerror or error}") from error
    for entry in entries:  # names end up in tables, pages and terminals
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in entry.name):
            raise LeakpipeError(
                f"{folder}: the name {entry.name!a} holds control characters or is not Unicode; rename the file"
            )
    return entries


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
    """Reads the chosen images of a folder, with notes on what was passed over and what may have been read wrongly.

    Args:
        color: Whether to return three channels instead of one.
        kept: Names of images that are loaded regardless of `params.images`.

    Raises:
        LeakpipeError: An image cannot be read; the message names it.
    """
    from leakpipe.data.dicom_files import has_overlay
    from leakpipe.data.image_files import is_dicom, read_image

    wanted = set(kept)
    chosen = choose_images(
        folder.labels, params.images, kept={index for index, name in enumerate(folder.names) if name in wanted}
    )
    images = np.empty((len(chosen), 3 if color else 1, params.image_size, params.image_size), np.float32)
    overlays: list[str] = []
    for position, index in enumerate(chosen):
        path = folder.root / folder.names[index]
        images[position] = read_image(path, size=params.image_size, color=color)
        if is_dicom(path) and has_overlay(path):
            overlays.append(folder.names[index])
    labels = np.array([folder.labels[index] for index in chosen], dtype=np.int64)
    names = tuple(folder.names[index] for index in chosen)
    narrow = [name for name, image in zip(names, images, strict=True) if np.ptp(image) < NARROW]
    notes = (
        folder.describe_rest(),
        _note(folder.root, narrow, len(names), f"use under {NARROW:.0%} of the range from black to white"),
        _note(folder.root, overlays, len(names), "have a layer of graphics (DICOM overlay), which is not drawn"),
    )
    return LabeledImages(images, labels, folder.classes, names=names, notes=tuple(filter(None, notes)))


def _note(root: Path, names: Sequence[str], total: int, what: str) -> str:
    return f"{root}: {len(names)} of {total} images {what} (first {names[0]!r})" if names else ""


def _list_class_folders(root: Path, params: ImagesParams) -> ImageFolder:
    entries = _scan(root)
    folders = (entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    classes = params.classes or tuple(sorted(folders))
    if len(classes) < 2:
        raise LeakpipeError(f"{root}: has {len(classes)} class folders, expected at least two")
    listed = list_images(root, classes)
    beside = [entry.name for entry in entries if not entry.is_dir()]
    return replace(listed, passed_over={**listed.passed_over, BESIDE_CLASSES: beside})


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
