"""Labels of a client's images out of the gradient of its last linear layer.

For the mean cross-entropy, the gradient of the head's bias is mean(p − y) over the batch: predicted minus true
share of each class. So with p̄, the mean prediction, known,

    images of class c = images · (p̄_c − bias gradient_c)

exactly. One image needs no p̄: only the entry of its own class is negative (Zhao 2020). A batch's p̄ is taken
from guesses of its images (after Wainakh 2021 and Ma 2023); where rounding is then a close call, the attack
tries the nearest counts and keeps those that explain the update best (`leakpipe.attacks.optimise`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor

from leakpipe.attacks.distances import TINY
from leakpipe.attacks.observation import Observation
from leakpipe.errors import LeakpipeError
from leakpipe.models.layers import head_layer
from leakpipe.models.state import forward_training

CLOSE_CALL = 0.2  # nearer than this to whole numbers, an estimate leaves no doubt
MOST_GUESSES = 5


@dataclass(frozen=True)
class LabelCounts:
    """How many images of each class a client holds.

    Attributes:
        estimate: Float64 of shape (classes,), summing to the number of images.
        guesses: Whole counts that sum to it, nearest to the estimate first; one where there is no doubt.
    """

    estimate: Tensor
    guesses: Sequence[tuple[int, ...]]


def recover_label_counts(observation: Observation, guess: Tensor) -> LabelCounts:
    """Count a client's labels by class, from its update.

    Args:
        observation: With `images` known.
        guess: Guessed images, shape (images, channels, height, width), for the mean prediction p̄: the prior, or
            what an attack has found.

    Raises:
        LeakpipeError: The model does not end in a linear layer with a bias.
    """
    gradient = head_gradient(observation)
    images = observation.client.images
    if images == 1:
        counts = tuple(int(entry == gradient.argmin()) for entry in range(len(gradient)))
        return LabelCounts(torch.tensor(counts, dtype=torch.float64), [counts])
    with torch.no_grad():
        logits, _ = forward_training(observation.before, guess)
    predicted = logits.double().softmax(dim=1).mean(dim=0)
    estimate = (images * (predicted - gradient)).clamp_min(TINY)  # noise can make all of it negative
    estimate = estimate * (images / estimate.sum())
    present = gradient < 0  # p − y is below 0 for the images' own classes only
    return LabelCounts(estimate, _nearest_counts(estimate, present, images))


def head_gradient(observation: Observation) -> Tensor:
    """Mean gradient of the head's bias over the local steps, float64 of shape (classes,)."""
    name = f"{head_layer(observation.before)}.bias"
    if name not in observation.update.weights:
        raise LeakpipeError(
            f"labels: {name!r}, which they are recovered from, was removed from the update; grant labels"
        )
    return -observation.update.weights[name].double() / (observation.settings.learning_rate * observation.update.steps)


def labels_of_counts(counts: Sequence[int]) -> Tensor:
    """Class indices of shape (images,), in order: which candidate is called which is a matter of naming."""
    return torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))


def _nearest_counts(estimate: Tensor, present: Tensor, images: int) -> list[tuple[int, ...]]:
    """The estimate's rounding; where that is a close call also what one image of another class makes of it."""
    values = estimate.tolist()
    certain = present.tolist() if int(present.sum()) <= images else [False] * len(values)
    rounded = _round_to_sum(values, images, certain)
    nearest = max(abs(count - value) for count, value in zip(rounded, values, strict=True))
    if nearest < CLOSE_CALL:
        return [rounded]
    moved = [
        tuple(count + (entry == target) - (entry == source) for entry, count in enumerate(rounded))
        for source, target in permutations(range(len(rounded)), 2)
        if rounded[source] > certain[source]
    ]
    return sorted([rounded, *moved], key=lambda counts: math.dist(counts, values))[:MOST_GUESSES]


def _round_to_sum(values: Sequence[float], total: int, certain: Sequence[bool]) -> tuple[int, ...]:
    """Whole numbers that sum to `total`, at least 1 where `certain`, near the values."""
    counts = [max(int(value), int(known)) for value, known in zip(values, certain, strict=True)]
    while (missing := total - sum(counts)) != 0:
        entries = [entry for entry in range(len(counts)) if missing > 0 or counts[entry] > certain[entry]]
        gap = [math.copysign(1, missing) * (values[entry] - counts[entry]) for entry in entries]
        counts[entries[gap.index(max(gap))]] += 1 if missing > 0 else -1
    return tuple(counts)
