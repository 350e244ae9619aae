"""One patient's radiograph, and a data set of them. Image i is the same in a data set of any length."""

import math
from collections.abc import Sequence

import numpy as np

from leakpipe.data.phantom import CLASSES, BurnedText
from leakpipe.data.phantom.anatomy import Anatomy
from leakpipe.data.phantom.bones import cross_bones
from leakpipe.data.phantom.film import BONE, LUNG, WATER, Settings, develop, expose
from leakpipe.data.phantom.geometry import Map, Rays
from leakpipe.data.phantom.opacities import Patch, draw_patches, fill_air_spaces
from leakpipe.data.phantom.overlay import write_overlay
from leakpipe.data.phantom.soft import cross_soft_tissue
from leakpipe.data.phantom.vessels import draw_texture, draw_vessels
from leakpipe.randomness import derive_seed

FINEST = 128  # films with fewer pixels are exposed at a multiple of them, so that thin bones do not alias


def make_phantoms(
    count: int, size: int, *, burned_text: bool
) -> tuple[np.ndarray, np.ndarray, tuple[tuple[BurnedText, ...], ...]]:
    """Draws the radiographs of the first `count` patients.

    Args:
        count: At least 1.
        size: Height and width in pixels.
        burned_text: Whether name, birth date and side are written on each image; needs at least 128 pixels.

    Returns:
        Images, float32 of shape (count, 1, size, size) in [0, 1]; labels, int64 of shape (count,), by `CLASSES`; the
        texts of each image, or nothing without `burned_text`.
    """
    images = np.stack([make_radiograph(index, size)[None] for index in range(count)])
    texts = tuple(write_overlay(index, size) for index in range(count)) if burned_text else ()
    for image, held in zip(images, texts, strict=False):
        for text in held:
            image[:] = text.burn(image)
    return images, np.arange(count, dtype=np.int64) % len(CLASSES), texts


def make_radiograph(index: int, size: int) -> Map:
    """Draws the chest radiograph of patient number `index`.

    Args:
        index: At least 0; determines the patient and the exposure. Every second patient has opacities.
        size: Height and width in pixels.

    Returns:
        float32 of shape (size, size) in [0, 1], bones bright.
    """
    rng = np.random.default_rng(derive_seed("cxr-phantom", index))
    # Values that do not depend on the film's size are drawn first, so that only the noise depends on the size.
    patient, settings = Anatomy.draw(rng), Settings.draw(rng)
    patches = draw_patches(patient, rng) if index % len(CLASSES) else ()
    multiple = math.ceil(FINEST / size)
    fine = size * multiple
    vessels, texture = draw_vessels(fine, patient, rng), draw_texture(fine, rng)
    attenuation = np.empty_like(texture)
    for rows, band in Rays.cast(fine, patient).bands():
        attenuation[rows] = _attenuate(band, patient, patches, texture=texture[rows], vessels=vessels[rows])
    picture = develop(expose(attenuation, rng), settings)
    binned: Map = picture.reshape(size, multiple, size, multiple).mean(axis=(1, 3))
    return binned


def _attenuate(rays: Rays, patient: Anatomy, patches: Sequence[Patch], *, texture: Map, vessels: Map) -> Map:
    """Returns the attenuation along every ray: thickness of each tissue times its coefficient."""
    tissue = cross_soft_tissue(rays, patient)
    fluid = tissue.lung * tissue.field * fill_air_spaces(rays, patches, texture)
    lungs = WATER * fluid + LUNG * (tissue.lung - fluid)
    lungs *= 1 + (0.09 * patient.texture) * texture  # air spaces make lungs' structure coarser than that of flesh
    flesh = WATER * (tissue.water * (1 + (0.018 * patient.texture) * texture) + vessels * tissue.field)
    return flesh + lungs + BONE * cross_bones(rays, patient, tissue.cage)
