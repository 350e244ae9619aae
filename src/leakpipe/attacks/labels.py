"""Labels of a client's images out of the gradient of its last linear layer.

The gradient of the head's bias is the mean over the batch of v = ∂loss/∂logits: for the mean cross-entropy p − y,
predicted minus true share of each class. With p̄, the mean prediction, known, an image of class c adds about v_c(p̄), so
the numbers n_c of images of each class solve

    Σ_c n_c · (v_c(p̄) − u_c · bias gradient) = 0,    Σ_c n_c = images

with u_c what an image of the class adds to the divisor of the loss. For the cross-entropy v_c(p̄) = p̄ − e_c, so that

    n_c = images · (p̄_c − bias gradient_c)

exactly. One image needs no p̄: only the entry of its own class is negative (Zhao 2020). A batch's p̄ is taken
from guesses of its images (after Wainakh 2021 and Ma 2023); where rounding is then a close call, the attack
tries the nearest counts and keeps those that explain the update best (`leakpipe.attacks.optimise`). With smoothed
labels one image is counted as a batch is: a prediction above the smoothed label turns the sign.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import torch
from torch import Tensor

from leakpipe.attacks.distances import TINY
from leakpipe.attacks.observation import Observation
from leakpipe.attacks.plain_update import Reading, read_training, what_loses_length
from leakpipe.client.losses import training_loss
from leakpipe.errors import LeakpipeError
from leakpipe.models.layers import head_layer
from leakpipe.models.state import forward_training
from leakpipe.params.training import LossParams, TrainingParams

CLOSE_CALL = 0.2  # nearer than this to whole numbers, an estimate leaves no doubt
MOST_GUESSES = 5


@dataclass(frozen=True)
class LabelCounts:
    """The number of images of each class that a client holds.

    Attributes:
        estimate: Float64 of shape (classes,), summing to the number of images.
        guesses: Whole counts that sum to it, nearest to the estimate first; one where there is no doubt.
    """

    estimate: Tensor
    guesses: Sequence[tuple[int, ...]]


def recover_label_counts(
    observation: Observation, guess: Tensor, training: TrainingParams | None = None
) -> LabelCounts:
    """Count a client's labels by class, from its update.

    Args:
        observation: With `images` known.
        guess: Guessed images, shape (images, channels, height, width), for the mean prediction p̄: the prior, or
            what an attack has found.
        training: How the client is believed to have trained; None is as it did.

    Raises:
        LeakpipeError: The model does not end in a linear layer with a bias, or the update does not tell how large the
            gradient was.
    """
    training = training or observation.settings.training
    loss, images = training.loss, observation.client.images
    sign = head_gradient_sign(observation, training)
    floor = loss.label_smoothing / len(sign)
    if images == 1 and not floor:
        counts = tuple(int(entry == sign.argmin()) for entry in range(len(sign)))
        return LabelCounts(torch.tensor(counts, dtype=torch.float64, device="cpu"), [counts])
    gradient = head_gradient(observation, training).cpu()
    with torch.no_grad():
        logits, _ = forward_training(observation.before, guess)
    estimate = _solve_counts(gradient, logits.double().cpu(), loss, images)
    estimate = estimate.clamp_min(TINY)  # noise can make all negative
    estimate = estimate * (images / estimate.sum())
    weights = loss.class_weights or (1.0,)
    spread = max(weights) / min(weights) if min(weights) > 0 else math.inf
    # Entries of other classes are at least 0, with smoothed labels at least −smoothing / classes.
    present = gradient < (-floor * spread if floor else 0.0)
    return LabelCounts(estimate, _nearest_counts(estimate, present, images))


def recover_label_set(observation: Observation, training: TrainingParams) -> Tensor:
    """Returns which labels a client's only image has, 0 or 1 for each class, float32 of shape (1, classes).

    In binary cross-entropy the gradient of a logit is negative for a label that the image has, and else positive,
    whatever the network predicts.

    Raises:
        LeakpipeError: There are several images, whose labels add up, or the loss is another.
    """
    images = observation.client.images
    if images > 1:
        raise LeakpipeError(
            f"labels: of {images} images with several labels each cannot be recovered, the update tells how many have "
            "a label and not which have it; grant them (threat_model.labels: known)"
        )
    if training.loss.kind != "binary-cross-entropy":
        raise LeakpipeError(
            f"labels: several of an image cannot be recovered from {training.loss.kind}, which mixes them; grant them "
            "(threat_model.labels: known)"
        )
    return (head_gradient_sign(observation, training) < 0).float()[None]


def head_gradient_sign(observation: Observation, training: TrainingParams) -> Tensor:
    """The head's bias as plain SGD with learning rate 1 would have changed it, times −1, up to a factor, float64."""
    name = _head_bias(observation)
    return -_reading(observation, training).drifted(name, observation.update.weights[name]).double()


def head_gradient(observation: Observation, training: TrainingParams) -> Tensor:
    """Mean gradient of the head's bias, per image and of a loss with factor 1, float64 of shape (classes,).

    Raises:
        LeakpipeError: The optimiser leaves only its sign or direction, or the update lacks it.
    """
    name = _head_bias(observation)
    reading, changes = _reading(observation, training), observation.update.weights
    if reading.gain is None or not reading.knows_length(changes):
        lost = what_loses_length(training)
        raise LeakpipeError(
            f"labels: of {observation.client.images} images cannot be counted, {lost} leaves only the direction of the "
            "gradient; grant them (threat_model.labels: known) or search them (labels: joint)"
        )
    summed = training.loss.reduction == "sum"
    batch = observation.client.images * observation.client.epochs / observation.update.steps if summed else 1.0
    return reading.gradient(name, changes[name]) / (training.loss.factor * batch)


def _head_bias(observation: Observation) -> str:
    """Returns the name of the head's bias; raises `LeakpipeError` where the update lacks it."""
    name = f"{head_layer(observation.before)}.bias"
    if name not in observation.update.weights:
        raise LeakpipeError(
            f"labels: {name!r}, which they are recovered from, was removed from the update; grant labels"
        )
    return name


def _reading(observation: Observation, training: TrainingParams) -> Reading:
    settings = replace(observation.settings, training=training)
    return read_training(observation.before.weights, settings, observation.update.steps)


def _solve_counts(gradient: Tensor, logits: Tensor, loss: LossParams, images: int) -> Tensor:
    """Numbers of images of each class that make up the head's gradient, by least squares, of shape (classes,).

    Args:
        gradient: As `head_gradient` returns it.
        logits: Of guessed images, shape (images, classes).
        loss: The client's.
        images: Their number.
    """
    classes = len(gradient)
    if loss.kind == "cross-entropy":
        predicted = logits.softmax(dim=1).mean(dim=0)
        if loss.class_weights is None and not loss.label_smoothing:
            return images * (predicted - gradient)
        mean = predicted.log()
    else:
        mean = logits.sigmoid().mean(dim=0).logit()
    each = mean.repeat(classes, 1).requires_grad_()
    of_each_class, plain = torch.arange(classes, device="cpu"), {"reduction": "sum", "factor": 1.0}
    summed = training_loss(each, of_each_class, loss.model_copy(update=plain))
    (slopes,) = torch.autograd.grad(summed, each)  # row c is what an image of class c adds
    divisor = gradient.new_ones(classes)
    if loss.kind == "binary-cross-entropy" and loss.reduction == "mean":
        divisor = divisor * classes
    elif loss.class_weights is not None and loss.reduction == "mean":
        divisor = divisor.new_tensor(loss.class_weights)
    system = slopes.T - gradient[:, None] * divisor
    equations = torch.cat([system, gradient.new_ones(1, classes)])
    wanted = torch.cat([gradient.new_zeros(classes), gradient.new_full((1,), images)])
    solution: Tensor = torch.linalg.lstsq(equations, wanted[:, None], driver="gelsd").solution
    return solution[:, 0]


def labels_of_counts(counts: Sequence[int]) -> Tensor:
    """Class indices of shape (images,), in order: which candidate is called which is a matter of naming."""
    return torch.arange(len(counts), device="cpu").repeat_interleave(torch.tensor(counts, device="cpu"))


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
