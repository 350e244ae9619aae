"""Disease: patches of lung in which fluid replaces air, hazy (ground glass) or dense (consolidation)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from leakpipe.data.phantom.anatomy import Anatomy
from leakpipe.data.phantom.geometry import Map, Rays, dome, ellipse


@dataclass(frozen=True)
class Patch:
    """An ellipse in which up to `filled` of the lung's air is replaced by fluid; `tilt` in radians."""

    x: float
    y: float
    wide: float
    high: float
    tilt: float
    filled: float


def draw_patches(patient: Anatomy, rng: np.random.Generator) -> tuple[Patch, ...]:
    """Draws four to eight patches in both lungs."""
    return tuple(
        Patch(
            x=(-1, 1)[number % 2] * patient.cage * rng.uniform(0.4, 0.85),
            y=rng.uniform(-0.3, min(patient.dome) - 0.05),
            wide=rng.uniform(0.16, 0.34),
            high=rng.uniform(0.14, 0.3),
            tilt=rng.uniform(-0.8, 0.8),
            filled=rng.uniform(0.4, 0.85),
        )
        for number in range(int(rng.integers(4, 9)))
    )


def fill_air_spaces(rays: Rays, patches: Sequence[Patch], texture: Map) -> Map:
    """Returns the share of the lung's air that fluid replaces along every ray, in [0, 1], of the rays' shape.

    Args:
        texture: Standard normal fine structure that frays the edges of the patches.
    """
    filled = np.zeros_like(rays.x)
    for patch in patches:
        outline = ellipse(rays, x=patch.x, y=patch.y, wide=patch.wide, high=patch.high, tilt=patch.tilt)
        outline += 0.25 * texture
        np.maximum(filled, patch.filled * dome(np.maximum(outline, 0)), out=filled)
    return filled
