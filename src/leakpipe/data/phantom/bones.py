"""Bones: ribs as tilted rings, the spine's vertebrae, clavicles, shoulder blades, heads of the upper arms."""

import numpy as np

from leakpipe.data.phantom.anatomy import Anatomy
from leakpipe.data.phantom.geometry import Map, Rays, dome, fade


def cross_bones(rays: Rays, patient: Anatomy, cage: Map) -> Map:
    """Returns the compact bone along every ray, in cm, float32 of shape (size, size).

    Args:
        cage: Half width of the rib cage at the ray's height.
    """
    spine = patient.curvature[0] * np.sin(2 * rays.y + patient.curvature[1])
    bones = _ribs(rays, patient, cage) + _spine(rays, rays.x - spine)
    if rays.reach_above(0.15):
        bones += _shoulders(rays, patient) + _clavicles(rays, patient)
    return patient.bone * bones


def _ribs(rays: Rays, patient: Anatomy, cage: Map) -> Map:
    """Returns the ribs: rings around the chest that drop from back to front. A ray crosses each twice, or edge-on."""
    out = np.abs(rays.x) / cage
    back = dome(np.square(out))
    edge_on = 0.24 / np.maximum(back, 0.4)
    inside = fade(1 - out, 0.03)
    slope = patient.rib_slope
    rise = 0.09 * np.sin(np.pi * out)
    behind = _bands(rays, patient, slope * (1 - back) - rise, phase=0.0) * fade(out - 0.1, 0.1)
    # In front ribs end in cartilage before they reach the breastbone, and are broader and fainter.
    before = _bands(rays, patient, slope * (1 + 1.25 * back) - rise, phase=0.31) * fade(out - 0.5, 0.18)
    return inside * edge_on * (1.5 * behind + 0.8 * before)


def _bands(rays: Rays, patient: Anatomy, fall: Map, *, phase: float) -> Map:
    """Returns the profile of all ribs: bands that repeat down the body, each a tube with a rim denser than its core."""
    rank = (rays.y - patient.first_rib - fall) / patient.ribs + phase
    number = np.clip(np.rint(rank), 0, 11)
    jitter = patient.rib_jitter.take((12 * rays.left + number).astype(np.intp))
    across = np.square((rank - number - jitter) * (patient.ribs / patient.rib_width))
    profile: Map = dome(across) + 0.6 * np.maximum(1 - np.abs(across - 0.7) * 3, 0)
    return profile


def _spine(rays: Rays, away: Map) -> Map:
    """Vertebral bodies with dense end plates, discs between them, pedicles and spinous processes."""
    rank = rays.y * 6.2 * (1 - 0.12 * rays.y)
    place = rank - np.rint(rank)
    body = fade(0.085 - np.abs(away), 0.04) * fade(0.42 - np.abs(place), 0.12)
    plate = 0.45 * body * fade(np.abs(place) - 0.3, 0.1)
    pedicle = dome(np.square((np.abs(away) - 0.055) / 0.018) + np.square((place + 0.1) / 0.16))
    process = dome(np.square(away / 0.014) + np.square((place - 0.25) / 0.22))
    bone: Map = 0.2 * fade(0.08 - np.abs(away), 0.05) + 0.4 * body + 0.5 * plate + 0.25 * pedicle + 0.3 * process
    return bone


def _clavicles(rays: Rays, patient: Anatomy) -> Map:
    height, right, left, radius = patient.clavicle
    along = np.clip((np.abs(rays.x) - 0.09) / 0.8, 0, 1)
    curve = 0.05 * np.sin((2 * np.pi) * along)
    line = height - rays.of_side((right, left)) * along + curve
    thick = radius * (1.25 - 0.5 * np.sin(np.pi * along))
    across = np.square((rays.y - line) / thick)
    rim = 0.5 * np.maximum(1 - np.abs(across - 0.75) * 3, 0)
    ends = fade(np.abs(rays.x) - 0.1, 0.04) * fade(0.88 - np.abs(rays.x), 0.05)
    bone: Map = 0.75 * (dome(across) + rim) * ends
    return bone


def _shoulders(rays: Rays, patient: Anatomy) -> Map:
    """Shoulder blades, thin but for their inner border, and the round heads of the upper arms."""
    away = np.abs(rays.x)
    border = (patient.cage + 0.02) - 0.2 * (rays.y + 0.25)
    height = fade(rays.y + 0.66, 0.1) * fade(0.02 - rays.y, 0.12)
    plate = 0.16 * fade(away - border, 0.03) * fade(border + 0.24 - away, 0.06)
    rim = 0.3 * dome(np.square((away - border - 0.02) / 0.022))
    across = np.square((away - 1.02) / 0.14)
    head = 1.5 * dome(across + np.square((rays.y + 0.56) / 0.15))
    shaft = 1.1 * dome(np.square((away - 1.08) / 0.08)) * fade(rays.y + 0.5, 0.1) * fade(-rays.y, 0.3)
    return (plate + rim) * height + head + shaft
