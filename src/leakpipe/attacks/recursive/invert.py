"""Recursive inversion, whole: from an observation to the image, with a report on each layer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from leakpipe.attacks.distances import TINY
from leakpipe.attacks.observation import Observation
from leakpipe.attacks.recovered_statistics import recover_batch_statistics, weight_of_batches
from leakpipe.attacks.recursive.descent import descend
from leakpipe.attacks.recursive.forward import FixedNetwork
from leakpipe.attacks.recursive.found import LayerReport
from leakpipe.attacks.recursive.image import DEEP, Candidate, ImageSearch, ImageSettings
from leakpipe.attacks.recursive.labels import read_labels
from leakpipe.attacks.recursive.learned import LEAST_PUBLIC, LearnedInverse, LearnedSettings, can_learn
from leakpipe.attacks.recursive.reading import read_layers
from leakpipe.attacks.recursive.structure import read_chain
from leakpipe.errors import LeakpipeError
from leakpipe.models.batchnorm import BatchStatistics
from leakpipe.models.state import measure_statistics

CLOSER = 0.7  # of the prior's distance to the batch statistics: the least that images have to be closer than it
SHORT = 1 / 4  # of the steps in which an inverse is learned, where a search starts from its images
NEAR = 0.4  # relative error of the maps, up to which a search starts better from learned images than from the prior
MATCHING = 0.2  # of the prior's error against precise maps, up to which an image is believed in deep networks


@dataclass(frozen=True)
class RecursiveSettings:
    """The settings of recursive inversion.

    Attributes:
        image: The search below the recovered maps.
        learned: The inverse that is learned where this search does not match them, or goes through a max-pool.
    """

    image: ImageSettings = field(default_factory=ImageSettings)
    learned: LearnedSettings = field(default_factory=LearnedSettings)


@dataclass(frozen=True)
class RecursiveReconstruction:
    """The result of recursive inversion.

    Attributes:
        images: Shape (images, channels, height, width) in [0, 1], in any order; the prior where nothing better was
            found.
        labels: Class index of each image, int64 of shape (images,); None where the update does not tell.
        map_error: Relative error of the images' maps against those recovered, weighted by their precision; NaN where
            the images are the prior.
        layers: A report on every recovered map, from the last layer on.
        notes: Which map is missing and why, and why the images are the prior, in sentences.
    """

    images: Tensor
    labels: Tensor | None
    map_error: float
    layers: Sequence[LayerReport]
    notes: Sequence[str]


def invert_recursively(
    observation: Observation,
    settings: RecursiveSettings,
    generator: torch.Generator,
    *,
    on_layer: Callable[[LayerReport, Tensor], None] = lambda _report, _map: None,
    on_stage: Callable[[Candidate], None] = lambda _candidate: None,
) -> RecursiveReconstruction:
    """Recovers maps from the last block downwards by linear algebra, then searches the image below the lowest.

    Maps that noise spoiled can be fitted by images that are none. What tells is the update's batch statistics, of all
    layers whose statistics the search does not match: the result is the stage of the search whose statistics are the
    closest, and the prior where none is clearly closer than that. Deep networks amplify whatever an image is off by
    until the statistics no longer distinguish images (`ImageSearch.is_deep`). There the image that matches the maps
    best is believed, if its maps are off by at most a fifth of what the prior's are and hold as many entries as images.
    The distance of whole updates would not do, as in deep networks it is near 1 for images that no eye tells from the
    truth.

    Where the search does not match the maps, an inverse that is learned from public images has its say. It is tried on
    some that it did not learn from, which tells its squared error; what else its images are off those of the search is
    the search's. The images with the smaller of the two errors are the result. Where a max-pool leaves open which pixel
    of each window is the largest (`ImageSearch.is_pooled`), an inverse is learned first, in a quarter of the steps, and
    the search starts from its images if their maps are near the recovered.

    Args:
        observation: One client's update of one local step; its prior image is where the search starts otherwise.
        settings: How the search runs.
        generator: Draws the start vectors of Lanczos iterations, and noise on images.
        on_layer: Called with every recovered map.
        on_stage: Called after each stage of the search.

    Raises:
        LeakpipeError: The observation lacks what the attack needs.
    """
    prior = observation.client.prior
    if prior is None:
        raise LeakpipeError("recursive inversion starts its search at a prior image, but none is granted")
    if not observation.has_signal:
        note = "The observed weight differences are all zero, so the image is the prior."
        return RecursiveReconstruction(prior, None, float("nan"), [], [note])
    chain = read_chain(observation.before.module)
    layers = read_layers(observation, chain)
    found = descend(chain, layers, generator, on_map=on_layer)
    if not found.maps:
        note = f"No map came out, so the image is the prior: {found.stopped}"
        return RecursiveReconstruction(prior, None, float("nan"), [], [note])
    network = FixedNetwork(chain, layers, observation.before, torch.float32)
    weight = weight_of_batches(observation.settings.batch_norm_momentum, [1])
    search = ImageSearch(network, found, settings.image)
    recovered = recover_batch_statistics(observation.before, observation.update, weight)
    matched = {unit.normalization for unit in search.matched}
    wanted = {name: value for name, value in recovered.items() if name not in matched}

    def distance(images: Tensor) -> float:
        with torch.no_grad():
            return bounded_distance(measure_statistics(observation.before, images, frozen=False), wanted)

    best, reached, last, lowest = prior, float("nan"), float("inf"), float("inf")
    enough = least = CLOSER * distance(prior)
    matching, left = prior, search.compare(prior) if search.is_deep else float("inf")
    trusted = MATCHING * min(1.0, left) if search.is_deep and search.entries >= prior.numel() else 0.0
    short = replace(settings.learned, steps=max(1, round(SHORT * settings.learned.steps)))
    learned = _learn_images(observation, search, short, generator) if search.is_pooled else None
    start = learned.images if learned and search.compare(learned.images) < NEAR else prior
    for candidate in search.candidates(start, generator, is_learned=start is not prior):
        on_stage(candidate)
        lowest = min(lowest, candidate.error)
        if search.is_deep and (error := search.compare(candidate.images)) < left:
            matching, left = candidate.images, error
        measured = distance(candidate.images)
        if measured < least:
            best, reached, least = candidate.images, candidate.error, measured
        if measured > last and least == enough and not search.is_deep:  # none is close enough, and they get no closer
            break
        last = measured
    is_matched = lowest <= search.solved
    if matching is not prior and left <= trusted:
        best, reached, is_matched = matching, left, True
    notes = [found.stopped] if found.stopped else []
    if learned and start is learned.images:
        notes.append(
            f"The search starts from images of an inverse that was learned from {learned.public} public images."
        )
    if not is_matched and (learned is None or search.depth > DEEP):
        learned = _learn_images(observation, search, settings.learned, generator)
    if not is_matched and learned:
        searched = float((learned.images - best).square().mean()) - learned.squared_error
        is_close = search.is_deep or distance(learned.images) < enough
        if is_close and (best is prior or searched > learned.squared_error):
            best, reached = learned.images, search.compare(learned.images)
            notes.append(
                f"The search matched the maps to {lowest:.1%} only, so the images are those of an inverse that was "
                f"learned from {learned.public} public images."
            )
    if best is prior:
        notes.append("No image was clearly closer to the update's batch statistics than the prior, so it is the prior.")
    labels = None if best is prior else read_labels(observation, chain, layers, found)
    return RecursiveReconstruction(best, labels, reached, found.reports, notes)


@dataclass(frozen=True)
class LearnedImages:
    """What a learned inverse made of the recovered maps: images, its squared error, how many images it learned from."""

    images: Tensor
    squared_error: float
    public: int


def _learn_images(
    observation: Observation, search: ImageSearch, settings: LearnedSettings, generator: torch.Generator
) -> LearnedImages | None:
    """Learns an inverse of the maps that the search matches; None without public images, or of maps it does not fit."""
    public, first = observation.public, next(iter(search.targets.values()))
    if public is None or len(public) < LEAST_PUBLIC or not can_learn(observation.image_shape[1:], first.shape[2:]):
        return None
    inverse = LearnedInverse(search.network, search.errors, public, settings, generator)
    return LearnedImages(inverse.rebuild(search.targets), inverse.squared_error, len(inverse.public))


def bounded_distance(found: Mapping[str, BatchStatistics], wanted: Mapping[str, BatchStatistics]) -> float:
    """Returns how far batch statistics are apart, from 0 to 1: the mean of d / (1 + d) over all channels.

    d is ((μ − μ*)² + (σ − σ*)²) / σ*²; bounded, as noise makes it arbitrarily large where a variance is small.
    """
    gaps = []
    for name, target in wanted.items():
        deviation, variance = found[name].variance.clamp_min(0).sqrt(), target.variance.clamp_min(TINY)
        gap = ((found[name].mean - target.mean).square() + (deviation - variance.sqrt()).square()) / variance
        gaps.append(gap / (1 + gap))
    return float(torch.cat(gaps).double().mean())
