"""MedMNIST: eighteen standardised sets of small medical images and volumes.

An image of `chestmnist` may have several labels; those of all other sets have one.
Class names come from the package `medmnist` (extra `medmnist`); its files are read without it.
"""

import ast
import zipfile
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import numpy as np

from leakpipe.data.folders import choose_images, find_root
from leakpipe.data.images import Contents, Dataset, LabeledImages
from leakpipe.errors import LeakpipeError
from leakpipe.params.data import ImagesParams

FOLDER = "medmnist"
SIZES, VOLUME_SIZES = (28, 64, 128, 224), (28, 64)
VOLUME = 3  # axes
SPLITS = ("train", "val", "test")  # in this order they become one data set, which is split anew
MISSING = "data set 'medmnist' needs the names in package medmnist: pip install 'leakpipe[medmnist]'"


@cache
def read_info() -> Mapping[str, Any] | None:
    """Returns the package's table of its sets, None if the package is not installed.

    The table is parsed from the source in 2 ms. Importing the package would take 3 s (it imports torch and
    scikit-learn) whenever an experiment is planned, and create a folder in the user's home.
    """
    spec = find_spec("medmnist")
    source = Path(str(spec.origin)).with_name("info.py") if spec and spec.origin else None
    if source is None or not source.is_file():
        return None
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == "INFO" for to in node.targets):
            table: Mapping[str, Any] = ast.literal_eval(node.value)
            return table
    return None


def describe_subset(subset: str) -> Mapping[str, Any]:
    """Returns the package's description of a set.

    Raises:
        LeakpipeError: The package is missing, or `subset` is unknown.
    """
    info = read_info()
    if info is None:
        raise LeakpipeError(MISSING)
    if subset not in info:
        raise LeakpipeError(f"data.subset: {subset!r} is not a set of MedMNIST, expected one of {', '.join(info)}")
    about: Mapping[str, Any] = info[subset]
    return about


def choose_size(params: ImagesParams) -> int:
    """Returns the size of the stored images to read: the requested one, or the smallest that is not enlarged."""
    sizes = VOLUME_SIZES if count_axes(str(params.subset)) == VOLUME else SIZES
    if params.stored_size and params.stored_size not in sizes:
        raise LeakpipeError(
            f"data.stored_size: {params.stored_size}, expected {' or '.join(map(str, sizes))} for {params.subset!r}"
        )
    return params.stored_size or next((size for size in sizes if size >= params.image_size), sizes[-1])


def count_axes(subset: str) -> int:
    """Returns 3 for a set of volumes, 2 for one of images."""
    return VOLUME if subset.endswith("3d") else 2


def has_several(about: Mapping[str, Any]) -> bool:
    """Returns whether an image of a set may have several labels."""
    return "multi-label" in about["task"]


def file_name(subset: str, size: int) -> str:
    """Returns the package's name for the file of a set at one size."""
    return f"{subset}.npz" if size == SIZES[0] else f"{subset}_{size}.npz"


def _contents(params: ImagesParams) -> Contents | None:
    if read_info() is None:
        return None
    about = describe_subset(str(params.subset))
    images = sum(about["n_samples"].values())
    return Contents(
        tuple(about["label"].values()),
        min(images, params.images or images),
        about["n_channels"],
        count_axes(str(params.subset)),
        has_several(about),
    )


def _load(params: ImagesParams) -> LabeledImages:
    subset, size = str(params.subset), choose_size(params)
    about = describe_subset(subset)
    classes, columns = tuple(about["label"].values()), len(about["label"]) if has_several(about) else 1
    path = find_root(params, FOLDER) / file_name(subset, size)
    if not path.is_file():
        raise LeakpipeError(
            f"{path}: is missing; download it with `leakpipe fetch medmnist {subset} --size {size}`, or set data.root "
            "to its folder, or LEAKPIPE_DATA to the parent of that"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            labels = np.concatenate([_read_labels(archive, split, columns) for split in SPLITS])
            most = 1 if columns > 1 else len(classes) - 1
            if labels.min() < 0 or labels.max() > most:
                worst = int(labels.max() if labels.max() > most else labels.min())
                raise LeakpipeError(f"{path}: label {worst} is out of range, expected 0 to {most}")
            strata, _ = LabeledImages(np.empty(0), labels, classes).strata
            chosen = choose_images(strata.tolist(), params.images)
            side = (size,) * count_axes(subset)
            images = _read_images(archive, np.array(chosen), params.image_size, stored=side)
    except LeakpipeError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many types for what is damaged
        raise LeakpipeError(f"{path}: is damaged or not a file of MedMNIST: {error}") from error
    return LabeledImages(images, labels[chosen], classes)


def _read_labels(archive: zipfile.ZipFile, split: str, columns: int) -> np.ndarray:
    with archive.open(f"{split}_labels.npy") as stream:
        labels = np.lib.format.read_array(stream, allow_pickle=False)
    if labels.ndim != 2 or labels.shape[1] != columns or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{split}_labels has shape {labels.shape} and type {labels.dtype}, expected whole numbers (N, {columns})"
        )
    return labels.astype(np.int64) if columns > 1 else labels[:, 0].astype(np.int64)


def _read_images(
    archive: zipfile.ZipFile, chosen: np.ndarray, image_size: int, *, stored: tuple[int, ...]
) -> np.ndarray:
    """Reads the chosen images one by one, because a file can unpack to more than memory holds."""
    from leakpipe.data.image_files import fit_square

    fit = fit_square if len(stored) < VOLUME else _fit_cube
    found: list[np.ndarray] = []
    before = 0
    for split in SPLITS:
        with archive.open(f"{split}_images.npy") as stream:
            shape = _read_shape(stream, split, stored)
            count, pixels = shape[0], int(np.prod(shape[1:]))
            wanted = set(chosen[(chosen >= before) & (chosen < before + count)].tolist())
            for index in range(before, before + count):
                row = stream.read(pixels)
                if len(row) < pixels:
                    raise ValueError(f"{split}_images ends after {index - before} of {count} images")
                if index in wanted:
                    found.append(fit(np.frombuffer(row, np.uint8).reshape(shape[1:]) / np.float32(255), image_size))
            before += count
    if len(found) != len(chosen):
        raise ValueError("it has more labels than images")
    return np.stack(found)


def _fit_cube(voxels: np.ndarray, size: int) -> np.ndarray:
    """Resizes a cube by the mean of what each voxel covers; float32 of shape (1, size, size, size) in [0, 1]."""
    from skimage.transform import resize_local_mean

    return resize_local_mean(voxels, (size,) * VOLUME)[None].astype(np.float32)  # type: ignore[no-any-return]


def _read_shape(stream: IO[bytes], split: str, stored: tuple[int, ...]) -> tuple[int, ...]:
    version = np.lib.format.read_magic(stream)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
    shape, fortran, dtype = read_header(stream)
    if fortran or dtype != np.uint8 or shape[1:] not in {stored, (*stored[:2], 3)}:
        raise ValueError(
            f"{split}_images has shape {shape} and type {dtype}, expected (N, {', '.join(map(str, stored))})"
            f"{' or the same with 3 channels' if len(stored) < VOLUME else ''} of uint8"
        )
    return tuple(int(length) for length in shape)


MEDMNIST = Dataset(
    source="https://medmnist.com (files on Zenodo, record 10519652): npz of 28, 64, 128 or 224 pixels",
    licence="CC BY 4.0; `dermamnist` CC BY-NC 4.0",
    citation=(
        "Yang, Shi, Wei, Liu, Zhao, Ke, Pfister, Ni: MedMNIST v2: A large-scale lightweight benchmark for 2D and 3D "
        "biomedical image classification. Scientific Data 10, 2023, 41, doi 10.1038/s41597-022-01721-8; "
        "and the set's own source, which its page names."
    ),
    contents=_contents,
    load=_load,
)
