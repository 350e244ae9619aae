"""What the attacker has before it sees an update: public images and their mean, the prior image, or neither."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from leakpipe.errors import LeakpipeError
from leakpipe.files.storage import read_arrays, require_array, require_seed, sidecar_path, write_arrays

if TYPE_CHECKING:
    from leakpipe.data.images import LabeledImages

PRIOR = "leakpipe/prior"
PUBLIC = "public"  # the tensor of public images, beside the priors
MOST_PUBLIC = 512  # of them that are kept
LEVELS = 255  # that their values are rounded to
GRAY = 0.5  # the middle of [0, 1]: the best guess without public images


@dataclass(frozen=True)
class StoredPriors:
    """What an attacker has before it sees an update, read from a file.

    Attributes:
        images: float32 of shape (channels, height, width) by name: "all", and one per class.
        seed: Of the split.
        levels: The public images, uint8 of shape (count, channels, height, width); None where the attacker holds none.
    """

    images: dict[str, np.ndarray]
    seed: int
    levels: np.ndarray | None

    @property
    def public(self) -> np.ndarray | None:
        """The public images, float32 in [0, 1]."""
        return None if self.levels is None else self.levels.astype(np.float32) / LEVELS


def average_public_images(dataset: "LabeledImages", public: Sequence[int]) -> dict[str, np.ndarray]:
    """Averages the public images, over all classes and over each; not over each where an image has several labels.

    Args:
        dataset: All images.
        public: Indices of the public images.

    Returns:
        "all", and "class0", "class1", … by label, each float32 of shape (channels, height, width).

    Raises:
        LeakpipeError: A class has no public image.
    """
    chosen, images, labels = np.asarray(public), dataset.images, dataset.labels
    priors = {"all": images[chosen].mean(axis=0, dtype=np.float64).astype(np.float32)}
    for label, name in enumerate(dataset.classes if labels.ndim == 1 else ()):
        members = chosen[labels[chosen] == label]
        if len(members) == 0:
            raise LeakpipeError(f"data.public: {len(chosen)} public images hold none of class {name!r}")
        priors[f"class{label}"] = images[members].mean(axis=0, dtype=np.float64).astype(np.float32)
    return priors


def choose_priors(priors: Mapping[str, np.ndarray], choice: str, labels: Sequence[object]) -> np.ndarray:
    """Returns the prior image of each of a client's images, as the threat model grants it.

    Args:
        priors: "all", then one per class in the order of the labels (`average_public_images`).
        choice: "all", "class" (the mean of the image's own class) or "gray" (0.5 everywhere).
        labels: Class of each image.

    Returns:
        float32 of shape (images, channels, height, width).
    """
    if choice == "gray":
        return np.full((len(labels), *priors["all"].shape), GRAY, dtype=np.float32)
    return np.stack([priors["all"] if choice == "all" else priors[f"class{label}"] for label in labels])


def save_priors(
    path: Path, priors: Mapping[str, np.ndarray], *, seed: int, public: Sequence[np.ndarray] | np.ndarray = ()
) -> None:
    """Writes the prior images of one seed's split, and of its public images `MOST_PUBLIC` at most, evenly chosen.

    Args:
        path: The file.
        priors: As `average_public_images` returns them.
        seed: Of the split.
        public: Images that the attacker holds, each of shape (channels, height, width) in [0, 1]; they are rounded to
            256 levels.
    """
    arrays = dict(priors)
    if len(public):
        chosen = np.unique(np.linspace(0, len(public) - 1, MOST_PUBLIC).round().astype(int))
        arrays[PUBLIC] = np.stack([(public[index] * LEVELS).round().astype(np.uint8) for index in chosen])
    write_arrays(path, PRIOR, arrays, {"seed": seed})


def load_priors(path: Path) -> StoredPriors:
    """Reads a file that `save_priors` wrote.

    Raises:
        LeakpipeError: It is none, or its tensors have other shapes or types.
    """
    arrays, metadata = read_arrays(path, PRIOR)
    images = {name: require_array(path, arrays, name, 3, 4) for name in arrays if name != PUBLIC}
    levels = require_array(path, arrays, PUBLIC, 4, 5) if PUBLIC in arrays else None
    if levels is not None and levels.dtype != np.uint8:
        raise LeakpipeError(f"{path}: tensor {PUBLIC!r} is {levels.dtype}, expected uint8; make the file anew")
    return StoredPriors(images, require_seed(sidecar_path(path), metadata), levels)
