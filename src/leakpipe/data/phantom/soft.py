"""Soft tissue and air: the body's outline, lungs, heart, great vessels, airways, diaphragm."""

from dataclasses import dataclass

import numpy as np

from leakpipe.data.phantom.anatomy import Anatomy
from leakpipe.data.phantom.geometry import Map, Rays, dome, ellipse, fade


@dataclass(frozen=True)
class SoftTissue:
    """The soft tissue that rays cross, float32 of shape (size, size).

    Attributes:
        water: Muscle, fat, blood and organs, in cm of water.
        lung: Air-filled lung, in cm.
        field: Share of the ray's path that may be lung, in [0, 1]: 1 in the middle of a lung.
        cage: Half width of the rib cage at the ray's height.
    """

    water: Map
    lung: Map
    field: Map
    cage: Map


def cross_soft_tissue(rays: Rays, patient: Anatomy) -> SoftTissue:
    """Returns the thickness of soft tissue and lung along every ray."""
    cage = _cage_width(rays, patient)
    field = _lung_field(rays, patient, cage)
    heart = _heart(rays, patient)
    # Lungs are deepest at their middle: they taper upwards, to the side, and around what lies between them.
    deep = patient.depth * dome(np.square(rays.x / (1.06 * cage))) * (0.6 + 0.4 * fade(rays.y + 0.45, 0.8))
    deep *= 0.7 + 0.3 * fade(np.abs(rays.x) - patient.mediastinum - 0.08, 0.3)
    lung = 0.88 * deep * field * (1 - 0.8 * heart)
    water = np.maximum(_body(rays, patient) - lung - _air(rays, patient), 0)
    return SoftTissue(water + _breasts(rays, patient), lung, field * (1 - 0.6 * heart), cage)


def _cage_width(rays: Rays, patient: Anatomy) -> Map:
    """Returns the half width of the rib cage: a dome that becomes a barrel."""
    down = np.clip((rays.y + 0.9) / 1.25, 0.02, 1)
    width: Map = patient.cage * np.sqrt(1 - np.square(1 - down)) * (1 - 0.06 * down)
    return width


def _lung_field(rays: Rays, patient: Anatomy, cage: Map) -> Map:
    away = np.abs(rays.x)
    middle = patient.mediastinum + 0.05 * np.square(rays.y)
    top = rays.of_side(patient.apex) + 2.4 * np.square(away - (0.42 * patient.cage))
    arched = np.square((away - (0.42 * patient.cage)) / patient.cage)
    base = rays.of_side(patient.dome) + 1.1 * arched
    lateral = fade(0.97 * cage - away, 0.035)
    # Behind the dome a thin recess of lung reaches further down: the dome has one sharp and one soft edge.
    below = 0.9 * fade(base - rays.y, 0.025) + 0.1 * fade(base + 0.2 - rays.y, 0.25)
    return lateral * fade(away - middle, 0.08) * fade(rays.y - top, 0.06) * below


def _heart(rays: Rays, patient: Anatomy) -> Map:
    """Returns the share of the lung's depth that heart and aortic arch occupy."""
    x, y, long, wide, tilt = patient.heart
    heart = fade(1 - ellipse(rays, x=x, y=y, wide=long, high=wide, tilt=tilt), 0.16)
    arch = fade(1 - ellipse(rays, x=0.1, y=-0.3, wide=patient.arch + 0.02, high=1.5 * patient.arch), 0.6)
    (right_x, right_y), (left_x, left_y) = patient.hila
    hila = 0.3 * dome(ellipse(rays, x=right_x, y=right_y, wide=0.1, high=0.16, tilt=0.4))
    hila += 0.3 * dome(ellipse(rays, x=left_x, y=left_y, wide=0.09, high=0.14, tilt=-0.4))
    share: Map = np.maximum(np.maximum(heart, 0.75 * arch), hila)
    return share


def _body(rays: Rays, patient: Anatomy) -> Map:
    """Returns the depth of the body from front to back, including the lungs."""
    away = np.abs(rays.x)
    top = patient.shoulder + 0.28 * np.square(away) - 0.5 * fade(0.3 - away, 0.25)
    trunk = dome(np.square(away / (patient.torso + 0.3)))
    shoulders = fade(rays.y - top, 0.12)
    flank = fade(patient.torso + fade(-0.2 - rays.y, 0.5) - away, 0.12)
    return (patient.depth + patient.fat) * trunk * shoulders * flank * (0.62 + 0.38 * fade(rays.y + 0.55, 0.7))


def _air(rays: Rays, patient: Anatomy) -> Map:
    """Returns windpipe, main bronchi and the bubble in the stomach, in cm."""
    air = _airways(rays) if rays.reach_above(0.0) else np.zeros_like(rays.x)
    if patient.bubble:
        where = {"x": 0.42 * patient.cage, "y": patient.dome[1] + 0.06 + patient.bubble}
        air += 7 * dome(ellipse(rays, **where, wide=1.5 * patient.bubble, high=patient.bubble))
    return air


def _airways(rays: Rays) -> Map:
    """Returns windpipe and main bronchi, in cm; none below the middle of the film."""
    bend = 0.02 * (rays.y + 1)
    windpipe = 1.9 * dome(np.square((rays.x - bend) / 0.055)) * fade(-0.27 - rays.y, 0.08)
    drop = np.clip(rays.y + 0.3, 0, 1)
    slope = rays.of_side((-1.1, 1.5))
    bronchi = 1.1 * dome(np.square((rays.x - slope * drop) / 0.04)) * fade(-0.12 - rays.y, 0.1)
    bronchi *= fade(rays.y + 0.3, 0.05)
    return windpipe + bronchi


def _breasts(rays: Rays, patient: Anatomy) -> Map:
    thickness, y, x, radius = patient.breasts
    if not thickness:
        return np.zeros_like(rays.x)
    pair = [dome(ellipse(rays, x=side * x, y=y, wide=radius, high=0.9 * radius)) for side in (-1, 1)]
    return thickness * (pair[0] + pair[1])
