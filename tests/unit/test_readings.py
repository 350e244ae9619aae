"""Readings of an aggregate: by generalised cross-validation, as one client's update or as that of all."""

import math
from typing import Any

import pytest
import torch

from leakpipe.attacks.observation import Observation
from leakpipe.attacks.optimise import invert
from leakpipe.attacks.readings import alone, inflation, prediction_error
from leakpipe.attacks.reconstruction import Reconstruction
from leakpipe.client.batches import make_batches
from leakpipe.client.local_update import local_update
from leakpipe.params.attack_settings import AttackSettings
from tests.unit.attacking import random_images
from tests.unit.test_aggregate import DOUBLE, clients_of, mean_of, together

WEIGHTS = 3 * 27 + 2 * 3 + 4 * 27 + 2 * 4 + 3 * 16 + 3  # of the network of `clients_of`; an image has 64 pixels


def seen_of(images: int) -> Observation:
    return together(clients_of([{"images": 1}, {"images": images - 1}])[0])


def noted(result: Reconstruction) -> str:
    return next(note for note in result.notes if note.startswith("The aggregate was read"))


@pytest.mark.parametrize(
    ("images", "expected"), [(2, 1 / (1 - 128 / WEIGHTS) ** 2), (3, 1 / (1 - 192 / WEIGHTS) ** 2), (4, math.inf)]
)
def test_a_reading_counts_less_the_more_pixels_it_fits(images: int, expected: float) -> None:
    assert inflation(seen_of(images)) == pytest.approx(expected)
    assert inflation(alone(seen_of(images))) == pytest.approx(1 / (1 - 64 / WEIGHTS) ** 2)


@pytest.mark.parametrize("changes", [{}, {"objective": "l2", "layer_weighting": 0.5, "batch_norm_weight": 1.0}])
def test_the_prediction_error_is_of_the_plain_cosine(changes: dict[str, Any]) -> None:
    """Against the clients' own training on the candidates, averaged by a plain loop."""
    clients, _ = clients_of([{"images": 1}, {"images": 1}])
    seen = together(clients)
    candidates = random_images(2, seed=9, dtype=DOUBLE)
    updates = [
        local_update(one.before, make_batches(image[None], one.client.labels, [[0]]), one.settings)
        for one, image in zip(clients, candidates, strict=True)
    ]
    explained = mean_of(updates, [1, 1]).weights
    flat = [torch.cat([part[name].flatten() for name in explained]) for part in (explained, seen.update.weights)]
    cosine = torch.cosine_similarity(*flat, dim=0).item()
    found = prediction_error(seen, AttackSettings(**changes), candidates, seen.candidate_labels)
    assert found == pytest.approx((1 - cosine) / (1 - 128 / WEIGHTS) ** 2, rel=1e-9)


def test_more_pixels_than_values_say_nothing_and_the_attack_is_the_naive_one() -> None:
    seen, settings, steps = seen_of(4), AttackSettings(iterations=3, batch_norm_weight=1.0), list[int]()
    found = invert(seen, settings, seed=0, on_iteration=lambda step, _: steps.append(step))
    naive = invert(alone(seen), settings, seed=0)
    assert torch.equal(found.images, naive.images)
    assert found.objective == naive.objective
    assert steps == [1, 2, 3]
    assert "4 images of 2 clients have more pixels than it has values" in noted(found)


@pytest.mark.parametrize(("iterations", "kept"), [(1, "one client's update"), (150, "that of all its clients")])
def test_the_reading_with_the_smaller_prediction_error_is_kept(iterations: int, kept: str) -> None:
    """At their starts both leave as much, and one image has fewer pixels; in the end only the true reading fits."""
    seen = seen_of(2)
    settings = AttackSettings(iterations=iterations, step_size=0.02, surrogate_slope=4.0)
    found = invert(seen, settings, seed=0)
    assert f"read as {kept}" in noted(found)
    assert found.images.shape == (1, 1, 8, 8)
    assert found.labels.tolist() == [0]
    assert (found.companions is None) == (iterations == 1)
    assert found.companions is None or found.companions.shape == (1, 1, 8, 8)
    assert torch.equal(found.images, invert(alone(seen), settings, seed=0).images) == (iterations == 1)


def test_an_attack_on_statistics_alone_searches_all_images() -> None:
    settings = AttackSettings(iterations=2, objective_weight=0.0, batch_norm_weight=1.0)
    found = invert(seen_of(4), settings, seed=0)
    assert "The update is an aggregate: 4 candidates for its 2 clients were searched." in found.notes
    assert found.images.shape == (1, 1, 8, 8)
