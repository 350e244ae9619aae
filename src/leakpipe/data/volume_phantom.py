"""`volume-phantom`: small CT-like volumes of chests that do not exist, drawn from a seed at any size."""

import numpy as np

from leakpipe.data.images import Contents, Dataset, LabeledImages
from leakpipe.params.data import ImagesParams
from leakpipe.randomness import derive_seed

CLASSES = ("clear", "nodules")  # every second patient has nodules
FLESH, LUNG, BONE, HEART = 0.5, 0.12, 0.92, 0.6  # gray values
NOISE = 0.015
Axes = tuple[np.ndarray, np.ndarray, np.ndarray]


def make_volume(index: int, size: int) -> np.ndarray:
    """Draws the chest of patient number `index`: ellipsoids of flesh, lungs, spine and heart, and tubes of vessels.

    Args:
        index: At least 0; determines the patient. Every second patient has nodules in the lungs.
        size: Depth (from head to feet), height and width in voxels.

    Returns:
        float32 of shape (size, size, size) in [0, 1]. Only the noise depends on the size beside the resolution.
    """
    rng = np.random.default_rng(derive_seed("volume-phantom", index))
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    axes = (axis[:, None, None], axis[None, :, None], axis[None, None, :])
    wide, deep = rng.uniform(0.78, 0.92), rng.uniform(0.6, 0.75)
    volume = FLESH * _ellipsoid(axes, (0, 0, 0), (3, deep, wide))
    lungs = np.zeros_like(volume)
    for side in (-1, 1):
        place = (rng.uniform(-0.1, 0.1), -0.05, side * rng.uniform(0.38, 0.44) * wide)
        extent = (rng.uniform(0.75, 0.9), rng.uniform(0.62, 0.74) * deep, rng.uniform(0.32, 0.4) * wide)
        lungs = np.maximum(lungs, _ellipsoid(axes, place, extent))
    volume += (LUNG - volume) * lungs
    for _ in range(int(rng.integers(8, 14))):  # vessels, from the middle outwards
        side = rng.choice((-1.0, 1.0))
        start = np.array([rng.uniform(-0.3, 0.3), rng.uniform(-0.1, 0.1), side * 0.15])
        way = np.array([rng.uniform(-0.6, 0.6), rng.uniform(-0.35, 0.35), side * rng.uniform(0.2, 0.5)])
        volume += (FLESH - volume) * lungs * _tube(axes, start, way, rng.uniform(0.03, 0.06))
    heart = (rng.uniform(0.2, 0.35), rng.uniform(-0.25, -0.1) * deep, rng.uniform(0.05, 0.2))
    volume += (HEART - volume) * _ellipsoid(axes, heart, tuple(rng.uniform(0.24, 0.38, 3)))
    volume += (BONE - volume) * _ellipsoid(axes, (0, 0.72 * deep, 0), (3, *rng.uniform(0.1, 0.15, 2)))
    for number in range(int(rng.integers(2, 5)) if index % len(CLASSES) else 0):
        side = (-1, 1)[number % 2]
        place = (rng.uniform(-0.5, 0.5), rng.uniform(-0.3, 0.3) * deep, side * rng.uniform(0.35, 0.6) * wide)
        volume += (rng.uniform(0.6, 0.85) - volume) * lungs * _ellipsoid(axes, place, (rng.uniform(0.12, 0.2),) * 3)
    volume += NOISE * rng.standard_normal(volume.shape)
    return volume.clip(0, 1).astype(np.float32)


def _ellipsoid(axes: Axes, place: tuple[float, ...], extent: tuple[float, ...]) -> np.ndarray:
    """1 inside and 0 outside, with an edge about as soft as a voxel is large."""
    radius = np.sqrt(sum(((axis - at) / half) ** 2 for axis, at, half in zip(axes, place, extent, strict=True)))
    return _soft((1 - radius) * min(extent), axes)


def _tube(axes: Axes, start: np.ndarray, way: np.ndarray, radius: float) -> np.ndarray:
    away = np.stack(np.broadcast_arrays(*(axis - at for axis, at in zip(axes, start, strict=True))))
    along = np.tensordot(way, away, axes=1) / (way @ way)
    nearest = along.clip(0, 1) * way[:, None, None, None]
    return _soft(radius - np.sqrt(((away - nearest) ** 2).sum(axis=0)), axes)


def _soft(inside: np.ndarray, axes: Axes) -> np.ndarray:
    edge = 1 / axes[0].size  # half a voxel
    found: np.ndarray = 1 / (1 + np.exp(np.clip(-2 * inside / edge, -50, 50)))
    return found


def _count(params: ImagesParams) -> int:
    assert params.images is not None  # `params.data` fills in the default
    return params.images


def _load(params: ImagesParams) -> LabeledImages:
    volumes = np.stack([make_volume(index, params.image_size)[None] for index in range(_count(params))])
    return LabeledImages(volumes, np.arange(len(volumes), dtype=np.int64) % len(CLASSES), CLASSES)


VOLUME_PHANTOM = Dataset(
    source="made by leakpipe.data.volume_phantom: volumes of chests that do not exist, from a seed at any size",
    licence="Apache-2.0, as leakpipe",
    citation="leakpipe (see CITATION.cff)",
    contents=lambda params: Contents(classes=CLASSES, images=_count(params), axes=3),
    load=_load,
)
