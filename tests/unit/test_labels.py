"""Labels recovered from the head's gradient: exact counts, close calls, and what cannot be recovered."""

import math
from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch

from leakpipe.attacks.labels import MOST_GUESSES, head_gradient, labels_of_counts, recover_label_counts
from leakpipe.attacks.observation import Observation
from leakpipe.client.batches import make_batches
from leakpipe.client.local_update import LocalSettings, local_update
from leakpipe.client.update import ClientUpdate
from leakpipe.errors import LeakpipeError
from leakpipe.models.layers import count_classes, head_layer
from leakpipe.models.state import ModelState, forward_training
from leakpipe.params.training import TrainingParams
from tests.unit.attacking import CLIENT, observe, random_images, small_model

CLASSES = 5


def counts_of(labels: list[int], classes: int = CLASSES) -> tuple[int, ...]:
    return tuple(Counter(labels)[label] for label in range(classes))


def images_of(labels: list[int], *, seed: int = 1) -> torch.Tensor:
    return random_images(len(labels), seed=seed, dtype=torch.float32)


@pytest.mark.parametrize("label", range(CLASSES))
@pytest.mark.parametrize("epochs", [1, 3])
def test_one_image_needs_no_good_guess(label: int, epochs: int) -> None:
    state = small_model(classes=CLASSES)
    found = recover_label_counts(observe(state, images_of([label]), [label], epochs=epochs), torch.zeros(1, 1, 8, 8))
    assert list(found.guesses) == [counts_of([label])]
    assert found.estimate.tolist() == list(counts_of([label]))


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [4, 4, 1, 4, 0, 1], [2, 2, 2], [0, 1]])
def test_true_images_as_guess_give_exact_counts(labels: list[int]) -> None:
    images = images_of(labels)
    found = recover_label_counts(observe(small_model(classes=CLASSES), images, labels), images)
    assert list(found.guesses) == [counts_of(labels)]
    assert found.estimate.tolist() == pytest.approx(counts_of(labels), abs=1e-4)


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [4, 4, 1, 4, 0, 1], [2, 2, 2], [3, 1]])
def test_an_untrained_model_forgives_a_wrong_guess(labels: list[int]) -> None:
    observation = observe(small_model(classes=CLASSES), images_of(labels), labels)
    for guess in (observation.client.prior, images_of(labels, seed=99)):
        assert recover_label_counts(observation, guess).guesses[0] == counts_of(labels)


def test_head_gradient_is_prediction_minus_truth() -> None:
    """mean(p − y) over the batch, by numpy."""
    labels = [0, 0, 3]
    images, state = images_of(labels), small_model(classes=CLASSES)
    logits = forward_training(state, images)[0].numpy().astype(np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = (shares - np.eye(CLASSES)[labels]).mean(axis=0)
    assert head_gradient(observe(state, images, labels), TrainingParams()).numpy() == pytest.approx(expected, abs=1e-6)


def told(state: ModelState, images: torch.Tensor, gradient: torch.Tensor) -> Observation:
    """An update whose head's bias has this gradient, and which says nothing else."""
    weights = {name: torch.zeros_like(value) for name, value in state.weights.items()}
    weights["head.bias"] = (-CLIENT.learning_rate * gradient).to(torch.float32)
    statistics = {name: torch.zeros_like(value) for name, value in state.statistics.items()}
    return observe(state, images, [0] * len(images), update=ClientUpdate(weights, statistics, 1))


def mean_prediction(state: ModelState, images: torch.Tensor) -> torch.Tensor:
    return forward_training(state, images)[0].double().softmax(dim=1).mean(dim=0)


def test_a_close_call_lists_the_nearest_counts_that_the_signs_allow() -> None:
    state, images = small_model(classes=CLASSES), images_of([0] * 3)
    wanted = [1.5, 1.2, 0.18, 0.09, 0.03]  # no two counts are equally near
    predicted = mean_prediction(state, images)
    found = recover_label_counts(told(state, images, predicted - torch.tensor(wanted).double() / 3), images)
    assert found.estimate.tolist() == pytest.approx(wanted, abs=1e-5)
    assert 1 < len(found.guesses) <= MOST_GUESSES
    distances = [math.dist(counts, found.estimate.tolist()) for counts in found.guesses]
    assert distances == sorted(distances)
    # Brute force over all whole counts: classes 0 and 1 have a negative gradient, so hold an image.
    possible = [c for c in product(range(4), repeat=CLASSES) if sum(c) == 3 and c[0] > 0 and c[1] > 0]
    nearest = sorted(possible, key=lambda counts: math.dist(counts, wanted))
    assert list(found.guesses) == nearest[: len(found.guesses)]


@pytest.mark.parametrize("images", [2, 3])
def test_signs_hold_even_where_the_guess_leaves_no_doubt(images: int) -> None:
    """Classes 1 and 2 have a negative gradient, so are there, though the guess looks like class 0 all over.

    A trained model's clients are like that: p is near y, so that gradients are small, while p̄ of the guess is not.
    """
    state = small_model(classes=CLASSES)
    bias = torch.tensor([9.0, 0.0, 0.0, 0.0, 0.0])
    state = state.with_tensors({**state.weights, "head.bias": bias}, state.statistics)
    guess = images_of([0] * images)
    assert mean_prediction(state, guess)[0] > 0.99
    found = recover_label_counts(told(state, guess, torch.tensor([0.02, -0.01, -0.01, 0.0, 0.0])), guess)
    for counts in found.guesses:
        assert sum(counts) == images
        assert counts[1] > 0
        assert counts[2] > 0


def test_signs_that_no_counts_satisfy_are_not_held_against_them() -> None:
    """Noise made four classes negative for two images."""
    state, images = small_model(classes=CLASSES), images_of([0] * 2)
    gradient = torch.tensor([-0.25, -0.2, -0.1, -0.05, 0.6])
    found = recover_label_counts(told(state, images, gradient), images)
    nearest = min((c for c in product(range(3), repeat=CLASSES) if sum(c) == 2),
                  key=lambda counts: math.dist(counts, found.estimate.tolist()))  # fmt: skip
    assert found.guesses[0] == nearest
    assert {sum(counts) for counts in found.guesses} == {2}


@pytest.mark.parametrize("seed", range(20))
def test_counts_always_sum_to_the_images(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images, state = 1 + seed % 7, small_model(classes=CLASSES)
    gradient = torch.randn(CLASSES, generator=generator) * (0.1 + seed)  # far from any true gradient
    guess = images_of([0] * images, seed=seed)
    found = recover_label_counts(told(state, guess, gradient), guess)
    assert float(found.estimate.sum()) == pytest.approx(images)
    assert 1 <= len(found.guesses) <= MOST_GUESSES
    assert len(set(found.guesses)) == len(found.guesses)
    for counts in found.guesses:
        assert sum(counts) == images
        assert min(counts) >= 0
        assert len(counts) == CLASSES


def test_a_gradient_that_leaves_no_class_any_image_is_survived() -> None:
    state, images = small_model(classes=CLASSES), images_of([0] * 3)
    found = recover_label_counts(told(state, images, torch.full((CLASSES,), 9.0)), images)
    assert found.estimate.tolist() == pytest.approx([3 / CLASSES] * CLASSES)
    assert all(sum(counts) == 3 for counts in found.guesses)


def test_many_classes() -> None:
    labels = [99, 3, 3, 42, 0, 57, 57, 57]
    images, state = images_of(labels), small_model(classes=100)
    observation = observe(state, images, labels)
    assert list(recover_label_counts(observation, images).guesses) == [counts_of(labels, 100)]
    assert recover_label_counts(observation, observation.client.prior).guesses[0] == counts_of(labels, 100)


def test_several_steps_give_their_mean() -> None:
    """Four images in two batches and two epochs at a small learning rate: counts as of one step."""
    labels, slow = [0, 2, 2, 4], LocalSettings(learning_rate=1e-4)
    images, state = images_of(labels), small_model(classes=CLASSES)
    schedule = [[0, 1], [2, 3]] * 2
    update = local_update(state, make_batches(images, torch.tensor(labels), schedule), slow)
    observation = observe(state, images, labels, batch_size=2, epochs=2, update=update, settings=slow)
    assert recover_label_counts(observation, images).guesses[0] == counts_of(labels)


def test_the_head_is_the_last_linear_layer_with_a_bias() -> None:
    state = small_model(classes=CLASSES)
    assert head_layer(state) == "head"
    assert count_classes(state) == CLASSES
    two = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 4))
    weights = dict(two.named_parameters())
    assert head_layer(ModelState(two, weights, {})) == "2"
    assert count_classes(ModelState(two, weights, {})) == 4


def test_without_a_bias_labels_cannot_be_recovered() -> None:
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, CLASSES, bias=False))
    state = ModelState(module, {"1.weight": torch.zeros(CLASSES, 64)}, {})
    observation = observe(state, images_of([1, 2]), [1, 2])
    with pytest.raises(LeakpipeError, match="no linear layer with a bias"):
        recover_label_counts(observation, observation.client.prior)


def test_labels_of_counts_lists_each_class_so_often() -> None:
    assert labels_of_counts((2, 0, 1)).tolist() == [0, 0, 2]
    assert labels_of_counts((0, 0, 0)).tolist() == []
