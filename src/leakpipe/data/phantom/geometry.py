"""Coordinates of the rays, and the shapes that organs are composed of."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from leakpipe.data.phantom.anatomy import Anatomy

Map = NDArray[np.floating]  # a value for every ray
BAND = 16_000  # rays that are followed together


@dataclass(frozen=True)
class Rays:
    """The points at which rays cross the patient, float32 of shape (size, size) each.

    Attributes:
        x: To the viewer's right, 0 at the spine.
        y: Downwards, about -1 at the neck and 1 at the waist.
        left: 1 in the patient's left half, 0 in the right.
    """

    x: Map
    y: Map
    left: Map

    @classmethod
    def cast(cls, size: int, patient: Anatomy) -> Self:
        """Casts one ray per pixel of a square film through a patient in the patient's pose."""
        pose = patient.pose
        steps = ((np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1) / pose.zoom
        columns, rows = steps[None, :] - pose.shift[0], steps[:, None] - pose.shift[1]
        cosine, sine = math.cos(pose.tilt), math.sin(pose.tilt)
        across, down = (Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC) for grid in patient.warp)
        x = cosine * columns + sine * rows + np.asarray(across)
        return cls(x=x, y=cosine * rows - sine * columns + np.asarray(down), left=(x > 0).astype(np.float32))

    def of_side(self, pair: tuple[float, float]) -> Map:
        """Returns the value of the patient's right or left half for each ray."""
        right, left = pair
        return right + (left - right) * self.left

    def reach_above(self, y: float) -> bool:
        """Returns whether any ray is above this height; organs above it can be skipped otherwise."""
        return bool(self.y.min() < y)

    def bands(self) -> Iterator[tuple[slice, Self]]:
        """Yields the rays in groups of rows that fit into a processor's cache, which is several times as fast."""
        rows = max(1, BAND // self.x.shape[1])
        for top in range(0, len(self.x), rows):
            band = slice(top, top + rows)
            yield band, type(self)(self.x[band], self.y[band], self.left[band])


def fade(distance: Map, width: float) -> Map:
    """Returns 0 outside (negative distance), 1 inside, and a smooth step of this width between."""
    t = distance * (1 / width)
    t += 0.5
    np.clip(t, 0, 1, out=t)
    bent = t * -2
    bent += 3
    t *= t
    t *= bent
    return t


def dome(ratio_squared: Map) -> Map:
    """Returns the height of a unit hemisphere at a squared distance from its centre; 0 outside."""
    height = 1 - ratio_squared
    np.maximum(height, 0, out=height)
    return np.sqrt(height, out=height)


def ellipse(rays: Rays, *, x: float, y: float, wide: float, high: float, tilt: float = 0.0) -> Map:
    """Returns the squared distance from the centre of an ellipse, in its radii: 1 on the outline."""
    cosine, sine = math.cos(tilt), math.sin(tilt)
    across, along = rays.x - x, rays.y - y
    first = across * (cosine / wide)
    second = along * (cosine / high)
    if tilt:
        first += along * (sine / wide)
        second -= across * (sine / high)
    first *= first
    second *= second
    first += second
    return first
