"""Vessels that branch from the hila, and the fine structure of all tissue."""

import math
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from leakpipe.data.phantom.anatomy import Anatomy, Pose
from leakpipe.data.phantom.geometry import Map

TRUNKS, STEPS = 9, 9
SLOPE = 1.5  # of the amplitude of tissue's fine structure over frequency


def draw_vessels(size: int, patient: Anatomy, rng: np.random.Generator) -> Map:
    """Draws the blood vessels along every ray, in cm of water, float32 of shape (size, size).

    Trunks from each hilum wander, fork, thin out and grow fainter. The vessels are not yet cut off at the lungs' edges.
    """
    canvas = Image.new("L", (size, size))
    pen = ImageDraw.Draw(canvas, "L")
    points = np.repeat(np.array(patient.hila), TRUNKS, axis=0)
    headings = np.concatenate([math.pi - (fan := np.linspace(-1.3, 1.4, TRUNKS)), fan]) + rng.normal(0, 0.2, 2 * TRUNKS)
    widths = rng.uniform(0.016, 0.03, 2 * TRUNKS)
    for step in range(STEPS):
        lengths = rng.uniform(0.05, 0.1, len(points))
        ends = points + lengths[:, None] * np.stack([np.cos(headings), np.sin(headings)], axis=1)
        lines = np.concatenate([_on_film(points, size, patient.pose), _on_film(ends, size, patient.pose)], axis=1)
        for line, width in zip(lines.tolist(), widths.tolist(), strict=True):
            pen.line(line, fill=int(min(255, 24 + 6500 * width)), width=max(1, round(width * size / 2)))
        points, headings = ends, headings + rng.normal(0, 0.22, len(headings))
        widths = widths * rng.uniform(0.78, 0.95, len(widths))
        if step in (1, 3):
            points, widths = np.repeat(points, 2, axis=0), np.repeat(widths, 2) * 0.9
            headings = np.repeat(headings, 2) + np.tile([-0.3, 0.3], len(headings)) * rng.uniform(0.5, 1.5)
    return np.asarray(canvas, dtype=np.float32) * (patient.markings / 180)


def _on_film(points: Map, size: int, pose: Pose) -> Map:
    """Returns the pixels of points of the patient, shape (N, 2): the inverse of `Rays.cast`."""
    cosine, sine = math.cos(pose.tilt), math.sin(pose.tilt)
    turned = points @ np.array([[cosine, sine], [-sine, cosine]]) + pose.shift
    pixels: Map = (turned * pose.zoom + 1) * (size / 2)
    return pixels


def draw_texture(size: int, rng: np.random.Generator) -> Map:
    """Draws the fine structure of tissue: noise with a power-law spectrum, as in radiographs (Burgess 1999).

    Returns:
        float32 of shape (size, size), mean 0 and standard deviation 1.
    """
    amplitude = _amplitude(size)
    waves = rng.standard_normal((*amplitude.shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
    noise = np.fft.irfft2(waves * amplitude, s=(size, size)).astype(np.float32)
    texture: Map = (noise - noise.mean()) / noise.std()
    return texture


@lru_cache
def _amplitude(size: int) -> Map:
    """Returns the amplitude of each wave of `numpy.fft.irfft2`, constant above a third of the film's size."""
    across, down = np.fft.rfftfreq(size, 1 / size), np.fft.fftfreq(size, 1 / size)
    frequency = np.hypot(down[:, None], across[None, :]).astype(np.float32)
    amplitude: Map = np.maximum(frequency, 3) ** -SLOPE
    return amplitude
