"""Recursive inversion, whole: from an observation to the image, with a report on each layer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from leakpipe.attacks.observation import Observation
from leakpipe.attacks.recursive.descent import descend
from leakpipe.attacks.recursive.found import LayerReport
from leakpipe.attacks.recursive.image import ImageSettings, search_image
from leakpipe.attacks.recursive.reading import read_layers
from leakpipe.attacks.recursive.structure import read_chain
from leakpipe.errors import LeakpipeError


@dataclass(frozen=True)
class RecursiveSettings:
    """How recursive inversion runs.

    Attributes:
        image: The search below the recovered maps.
    """

    image: ImageSettings = field(default_factory=ImageSettings)


@dataclass(frozen=True)
class RecursiveReconstruction:
    """What recursive inversion got.

    Attributes:
        images: Shape (images, channels, height, width) in [0, 1].
        map_error: Relative error of the images' maps against those recovered.
        start_error: The same of the prior image, where the search started.
        layers: A report on every recovered map, from the last layer on.
        notes: Where and why the recursion ended before the stem, in sentences.
    """

    images: Tensor
    map_error: float
    start_error: float
    layers: Sequence[LayerReport]
    notes: Sequence[str]


def invert_recursively(
    observation: Observation,
    settings: RecursiveSettings,
    generator: torch.Generator,
    *,
    on_layer: Callable[[LayerReport, Tensor], None] = lambda _report, _map: None,
    on_stage: Callable[[float, Tensor], None] = lambda _error, _images: None,
) -> RecursiveReconstruction:
    """Recovers maps from the last block downwards by linear algebra, then searches the image below the lowest.

    Args:
        observation: One client's update of one local step; its prior image is where the search starts.
        settings: How the search runs.
        generator: Draws the start vectors of Lanczos iterations.
        on_layer: Called with every recovered map.
        on_stage: Called after each stage of the search.

    Raises:
        LeakpipeError: The observation lacks what the attack needs.
    """
    if observation.client.images != 1:
        raise LeakpipeError(f"recursive inversion takes one image so far; the client has {observation.client.images}")
    if observation.client.prior is None:
        raise LeakpipeError("recursive inversion starts its search at a prior image, but none is granted")
    if not observation.has_signal:
        note = "The observed weight differences are all zero, so the image is the prior."
        return RecursiveReconstruction(observation.client.prior, float("nan"), float("nan"), [], [note])
    chain = read_chain(observation.before.module)
    layers = read_layers(observation, chain)
    found = descend(chain, layers, generator, on_map=on_layer)
    if not found.maps:
        note = f"No map came out, so the image is the prior: {found.stopped}"
        return RecursiveReconstruction(observation.client.prior, float("nan"), float("nan"), [], [note])
    images, error, start_error = search_image(
        chain, layers, found.maps, observation.client.prior, settings.image, arrived=found.arrived, on_stage=on_stage
    )
    return RecursiveReconstruction(images, error, start_error, found.reports, [found.stopped] if found.stopped else [])
