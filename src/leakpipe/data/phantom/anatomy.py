"""A patient: position and size of the organs, drawn at random within the range of adults."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Pose:
    """The position of the patient before the film: `tilt` in radians, `shift` in film units, `zoom` about 1."""

    tilt: float
    shift: tuple[float, float]
    zoom: float


@dataclass(frozen=True)
class Anatomy:
    """One patient, in the package's units. Pairs are (patient's right, patient's left), left to right on the film.

    Attributes:
        cage: Half width of the rib cage at its widest.
        depth: Of the chest from front to back, in cm.
        fat: Thickness of the chest wall, in cm.
        torso: Half width of the body below the arms.
        shoulder: How high the shoulders begin.
        apex: Top of each lung.
        dome: Top of each half of the diaphragm.
        hila: Centre of each hilum.
        mediastinum: Half width of the space between the lungs.
        heart: Centre x, centre y, half length, half width, tilt in radians.
        arch: Radius of the aortic arch.
        ribs: Distance between ribs.
        first_rib: Height at which the topmost rib leaves the spine.
        rib_slope: Drop of a rib from back to front.
        rib_width: Half the height of a rib.
        rib_jitter: Displacement of each rib, shape (2, 12).
        bone: Density of the bones relative to the average.
        curvature: Amplitude and phase of the spine's sideways curve.
        clavicle: Height at the sternum, rise towards the shoulder (right, left), radius.
        breasts: Thickness in cm, height, distance from the middle, radius; thickness 0 for none.
        bubble: Radius of the air in the stomach; 0 for none.
        texture: Strength of the tissue's fine structure.
        markings: Strength of the vessels.
        warp: Displacement of a coarse grid over the film, so that no outline is a perfect curve; shape (2, 9, 9).
    """

    pose: Pose
    cage: float
    depth: float
    fat: float
    torso: float
    shoulder: float
    apex: tuple[float, float]
    dome: tuple[float, float]
    hila: tuple[tuple[float, float], tuple[float, float]]
    mediastinum: float
    heart: tuple[float, float, float, float, float]
    arch: float
    ribs: float
    first_rib: float
    rib_slope: float
    rib_width: float
    rib_jitter: NDArray[np.float32]
    bone: float
    curvature: tuple[float, float]
    clavicle: tuple[float, float, float, float]
    breasts: tuple[float, float, float, float]
    bubble: float
    texture: float
    markings: float
    warp: NDArray[np.float32]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        """Draws a patient."""
        u = rng.uniform
        apex, dome = u(-0.84, -0.68), u(0.36, 0.68)
        size = u(0.32, 0.46)
        return cls(
            pose=Pose(tilt=rng.normal(0, 0.045), shift=(rng.normal(0, 0.06), rng.normal(0, 0.06)), zoom=u(0.98, 1.2)),
            cage=u(0.74, 0.9),
            depth=u(15, 22),
            fat=u(2.5, 6),
            torso=u(1.0, 1.3),
            shoulder=u(-0.86, -0.7),
            apex=(apex + u(-0.03, 0.03), apex + u(-0.03, 0.03)),
            dome=(dome - u(0.0, 0.07), dome + u(0.0, 0.07)),
            hila=((-u(0.2, 0.27), u(-0.16, 0.04)), (u(0.19, 0.26), u(-0.22, -0.02))),
            mediastinum=u(0.13, 0.19),
            heart=(u(0.08, 0.18), dome - u(0.14, 0.24), size, size * u(0.62, 0.85), u(0.35, 0.8)),
            arch=u(0.07, 0.12),
            ribs=u(0.135, 0.18),
            first_rib=u(-0.78, -0.6),
            rib_slope=u(0.2, 0.42),
            rib_width=u(0.022, 0.034),
            rib_jitter=rng.normal(0, 0.08, (2, 12)).astype(np.float32),
            bone=u(0.7, 1.25),
            curvature=(rng.normal(0, 0.02), u(0, 6)),
            clavicle=(u(-0.62, -0.46), u(0.02, 0.26), u(0.02, 0.26), u(0.028, 0.04)),
            breasts=(u(1.0, 4.5) * (rng.random() < 0.45), u(0.25, 0.5), u(0.38, 0.5), u(0.3, 0.42)),
            bubble=u(0.06, 0.14) * (rng.random() < 0.6),
            texture=u(0.7, 1.3),
            markings=u(0.7, 1.5),
            warp=rng.normal(0, 0.016, (2, 9, 9)).astype(np.float32),
        )
