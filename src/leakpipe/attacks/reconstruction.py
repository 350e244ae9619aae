"""The result of an attack."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Reconstruction:
    """The result of an attack.

    Attributes:
        images: Shape (images, channels, height, width) in [0, 1]: the best iterate by the attack's own
            objective, never by the truth.
        labels: Shape (images,): the class index that the attack took each image to have; where images have several
            labels, 0 or 1 for each class.
        objective: The objective there; None where it was never finite.
        explained: Share of the start's distance to the update that `images` remove, in [0, 1]: 1 − D(best) / D(start),
            0 where the best iterate is the start; None where the attack leaves out all weight differences. D is the
            update distance, without it the distance to the row spaces; where the update has no weight differences,
            that of the batch statistics. A recursive inversion starts at the prior image; None where its distance is
            not finite.
        iterations: Optimiser steps taken.
        stopped: Why it ended: "finished" all iterations, "converged" before, or "diverged".
        curves: Value of every term at `curves["iteration"]` (at most about 100 points).
        notes: What a reader must know (a term that could not be used, an engine that stood in), in sentences.
        layers: Of a recursive inversion, how each layer's map came out, from the last layer on
            (`leakpipe.attacks.recursive.descent.LayerReport`).
        companions: Of an aggregate, the images that were searched for its other clients, shape (images, channels,
            height, width). Which of an aggregate's clients an image belongs to, nothing says where they are alike.
    """

    images: Tensor
    labels: Tensor
    objective: float | None
    explained: float | None
    iterations: int
    stopped: str
    curves: Mapping[str, list[float]]
    notes: Sequence[str]
    layers: Sequence[Mapping[str, Any]] = ()
    companions: Tensor | None = None
