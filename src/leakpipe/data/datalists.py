"""Splits given by lists, in the format of those that the paper's code publishes.

Each client has a JSON file `<client>.json` with lists `training`, `validation` and `testing` of entries
`{"image": "COVID/images/COVID-1.png", "label": [1]}`. Paths are relative to the data set's folder. Other lists in the
file are ignored (the published files list unused images, too).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from leakpipe.data.images import LabeledImages
from leakpipe.data.partition import Split, draw_balanced, shuffle_by_class
from leakpipe.errors import LeakpipeError
from leakpipe.files.storage import read_json
from leakpipe.params.data import DataParams, ImagesParams
from leakpipe.params.federation import ClientParams

PARTS = ("training", "validation", "testing")


@dataclass(frozen=True)
class Listed:
    """One entry of a list: an image by its path in the data set's folder, its label, and the place of the entry."""

    image: str
    label: int
    where: str


Datalist = Mapping[str, tuple[Listed, ...]]


def find_datalists(params: ImagesParams) -> list[Path]:
    """Returns the files of `data.datalists`, sorted; none if the split is not given by lists."""
    return sorted(Path(params.datalists).expanduser().glob("*.json")) if params.datalists else []


def read_datalist(path: Path) -> Datalist:
    """Reads one client's lists.

    Raises:
        LeakpipeError: The file is missing or has another format, or a path leaves the data set's folder.
    """
    content = read_json(path)
    if "training" not in content:
        raise LeakpipeError(f"{path}: training: required, but missing")
    return {part: tuple(_read_entries(f"{path}: {part}", content.get(part, []))) for part in PARTS}


def _read_entries(where: str, entries: object) -> Iterator[Listed]:
    if not isinstance(entries, list):
        raise LeakpipeError(f"{where}: {entries!r}, expected a list")
    for position, entry in enumerate(entries):
        at = f"{where}[{position}]"
        match entry:
            case {"image": str(image), "label": [int(label)] | int(label)} if not isinstance(label, bool):
                if PurePosixPath(image).is_absolute() or ".." in PureWindowsPath(image).parts:
                    raise LeakpipeError(f"{at}.image: {image!r} leaves the data set's folder")
                yield Listed(PurePosixPath(image).as_posix(), label, at)
            case _:
                raise LeakpipeError(f'{at}: {entry!r}, expected {{"image": "path", "label": [number]}}')


def listed_images(params: ImagesParams) -> set[str]:
    """Returns the names of all images in the lists of `data.datalists`.

    Raises:
        LeakpipeError: There is no list, or a list cannot be read.
    """
    paths = find_datalists(params)
    if params.datalists and not paths:
        raise LeakpipeError(
            f"data.datalists: {params.datalists!r} holds no list, expected <client>.json for each client"
        )
    return {entry.image for path in paths for listed in read_datalist(path).values() for entry in listed}


def split_by_datalists(
    dataset: LabeledImages, data: DataParams, clients: Mapping[str, ClientParams], *, seed: int
) -> Split:
    """Splits a data set by lists: training images by client; validation and test images pooled over all clients.

    Public images are drawn by `seed` from those in no list. Two clients may hold the same image, as in the published
    lists; validation and test images are in no other part.

    Raises:
        LeakpipeError: A list is missing, names an image or a label that the data set does not have, or holds another
            number of images than the parameters; or an image is both trained on and held out.
    """
    folder = Path(str(data.datalists)).expanduser()
    lists = {name: read_datalist(folder / f"{name}.json") for name in clients}
    index = {name: position for position, name in enumerate(dataset.names)}
    held = {name: tuple(_resolve(dataset, index, entry) for entry in lists[name]["training"]) for name in clients}
    for name, client in clients.items():
        if len(set(held[name])) < len(held[name]):
            raise LeakpipeError(f"{folder / name}.json: training: names an image twice")
        _check_count(f"federation.clients.{name}.images", client.images, folder / f"{name}.json", set(held[name]))
    validation, test = (
        {_resolve(dataset, index, entry) for listed in lists.values() for entry in listed[part]}
        for part in ("validation", "testing")
    )
    _check_count("data.validation", data.validation, folder, validation)
    _check_count("data.test", data.test, folder, test)
    trained = {image for images in held.values() for image in images}
    for one, other in ((trained, validation), (trained, test), (validation, test)):
        if one & other:
            raise LeakpipeError(
                f"{folder}: {dataset.names[min(one & other)]!r} is in two of training, validation and test"
            )
    free = set(range(len(dataset.labels))) - {index[name] for name in listed_images(data) if name in index}
    left = shuffle_by_class(dataset.labels, dataset.classes, seed=seed, among=free)
    public = draw_balanced(left, data.public, dataset.classes, part="the public part")
    return Split(clients=held, validation=tuple(sorted(validation)), test=tuple(sorted(test)), public=public)


def _resolve(dataset: LabeledImages, index: Mapping[str, int], entry: Listed) -> int:
    if entry.image not in index:
        raise LeakpipeError(f"{entry.where}.image: {entry.image!r} is not an image of the data set")
    if not 0 <= entry.label < len(dataset.classes):
        classes = len(dataset.classes)
        raise LeakpipeError(f"{entry.where}.label: {entry.label} is out of range, expected 0 to {classes - 1}")
    label = int(dataset.labels[index[entry.image]])
    if entry.label != label:
        raise LeakpipeError(
            f"{entry.where}.label: {entry.label} ({dataset.classes[entry.label]}), but the image is in the folder of "
            f"{dataset.classes[label]} ({label}); data.classes sets the order of labels"
        )
    return index[entry.image]


def _check_count(field: str, expected: int, source: Path, found: set[int]) -> None:
    if len(found) != expected:
        raise LeakpipeError(f"{field}: {expected}, but the lists in {source} hold {len(found)} different images")
