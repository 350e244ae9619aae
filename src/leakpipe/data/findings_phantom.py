"""`findings-phantom`: drawings of chest X-rays that show none, one or several findings, from a seed at any size."""

import numpy as np

from leakpipe.data.images import Contents, Dataset, LabeledImages
from leakpipe.params.data import ImagesParams
from leakpipe.randomness import derive_seed

FINDINGS = ("nodule", "effusion", "large heart")
NOISE = 0.015
Plane = tuple[np.ndarray, np.ndarray]


def find_labels(index: int) -> tuple[int, ...]:
    """Returns which of `FINDINGS` image `index` shows: the bits of its number, so eight images have all of them."""
    return tuple(index >> place & 1 for place in range(len(FINDINGS)))


def make_drawing(index: int, size: int) -> np.ndarray:
    """Draws the chest of patient number `index`: a body, two lungs, a heart, and its findings.

    Args:
        index: At least 0; determines the patient and the findings (`find_labels`).
        size: Height and width in pixels.

    Returns:
        float32 of shape (size, size) in [0, 1].
    """
    rng = np.random.default_rng(derive_seed("findings-phantom", index))
    nodule, effusion, large_heart = find_labels(index)
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    plane = (axis[:, None], axis[None, :])
    image = 0.65 * _ellipse(plane, (0.1, 0), (1.3, rng.uniform(0.85, 0.98)))
    lungs = np.zeros_like(image)
    for side in (-1, 1):
        place = (rng.uniform(-0.15, 0), side * rng.uniform(0.4, 0.46))
        lungs = np.maximum(lungs, _ellipse(plane, place, (rng.uniform(0.62, 0.72), rng.uniform(0.28, 0.34))))
    image += (rng.uniform(0.18, 0.28) - image) * lungs
    wide = rng.uniform(0.44, 0.54) if large_heart else rng.uniform(0.22, 0.3)
    image += (0.75 - image) * _ellipse(plane, (rng.uniform(0.2, 0.3), rng.uniform(0.08, 0.16)), (0.32, wide))
    if effusion:
        level = _soft(plane[0] - rng.uniform(0.15, 0.3), size) * (plane[1] * rng.choice((-1, 1)) > 0)
        image += (0.8 - image) * lungs * level
    if nodule:
        place = (rng.uniform(-0.5, 0), rng.choice((-1, 1)) * rng.uniform(0.35, 0.5))
        image += (0.9 - image) * _ellipse(plane, place, (rng.uniform(0.09, 0.14),) * 2)
    image += NOISE * rng.standard_normal(image.shape)
    return image.clip(0, 1).astype(np.float32)


def _ellipse(plane: Plane, place: tuple[float, float], extent: tuple[float, ...]) -> np.ndarray:
    radius = np.hypot(*((axis - at) / half for axis, at, half in zip(plane, place, extent, strict=True)))
    return _soft((1 - radius) * min(extent), plane[0].size)


def _soft(inside: np.ndarray, size: int) -> np.ndarray:
    """1 inside and 0 outside, with an edge about as soft as a pixel is large."""
    found: np.ndarray = 1 / (1 + np.exp(np.clip(-2 * size * inside, -50, 50)))
    return found


def _count(params: ImagesParams) -> int:
    assert params.images is not None  # `params.data` fills in the default
    return params.images


def _load(params: ImagesParams) -> LabeledImages:
    numbers = range(_count(params))
    images = np.stack([make_drawing(index, params.image_size)[None] for index in numbers])
    return LabeledImages(images, np.array([find_labels(index) for index in numbers], dtype=np.int64), FINDINGS)


FINDINGS_PHANTOM = Dataset(
    source="made by leakpipe.data.findings_phantom: drawings of chests with none, one or several findings, from a seed",
    licence="Apache-2.0, as leakpipe",
    citation="leakpipe (see CITATION.cff)",
    contents=lambda params: Contents(classes=FINDINGS, images=_count(params), multi_label=True),
    load=_load,
)
