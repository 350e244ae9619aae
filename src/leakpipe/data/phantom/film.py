"""The film: X-rays are attenuated, counted and displayed like radiographs, with bright bones and dark lungs."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.ndimage import gaussian_filter, uniform_filter

from leakpipe.data.phantom.geometry import Map

# Attenuation per cm at about 60 keV (NIST XCOM, rounded): soft tissue as water, inflated lung at a quarter of its
# density, compact bone.
WATER, LUNG, BONE = 0.2, 0.05, 0.55
QUANTA = 40_000 * 224**2  # on the whole film, where nothing is in the way
BLUR = 0.0025  # of focal spot and detector, standard deviation, in sides of the film
GROUND = 9  # details are what is smaller than about this part of the film


@dataclass(frozen=True)
class Settings:
    """Settings of the display: weights of ground and detail, the window of attenuations, the film's curve."""

    ground: float
    detail: float
    low: float
    high: float
    gamma: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        """Draws settings that a radiographer might choose."""
        u = rng.uniform
        return cls(ground=u(0.75, 0.95), detail=u(1.3, 2.0), low=u(0.5, 1.0), high=u(5.2, 6.4), gamma=u(0.85, 1.35))


def expose(attenuation: Map, rng: np.random.Generator) -> Map:
    """Returns the attenuation as measured by counting quanta: -log of the share that arrived.

    Args:
        attenuation: -log of the share of quanta that pass, float32 of shape (size, size).
    """
    size = len(attenuation)
    sent = QUANTA / size**2
    arrived = sent * np.exp(-gaussian_filter(attenuation, BLUR * size, mode="nearest", truncate=2.5))
    # Poisson counts are normal where there are hundreds of them; a detector never counts less than one.
    counts = arrived + np.sqrt(arrived) * rng.standard_normal(arrived.shape, dtype=np.float32)
    measured: Map = math.log(sent) - np.log(np.maximum(counts, 1))
    return measured


def develop(attenuation: Map, settings: Settings) -> Map:
    """Enhances details over their ground, applies the window and the film's curve; returns values in [0, 1]."""
    ground = attenuation
    for _ in range(2):  # twice a box is nearly a Gaussian, and does not get slower as it gets wider
        ground = uniform_filter(ground, max(3, len(attenuation) // GROUND), mode="nearest")
    shown = settings.ground * ground + settings.detail * (attenuation - ground)
    window = np.clip((shown - settings.low) / (settings.high - settings.low), 0, 1)
    shades: Map = np.power(window, settings.gamma)
    return shades
