"""Secure aggregation: an attacker who is told of it searches the images of all clients in the mean together."""

from typing import Any

import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor
from torch.nn.functional import interpolate

from leakpipe.attacks.adaptive import adapt
from leakpipe.attacks.objective import Objective
from leakpipe.attacks.observation import Observation, usable_settings
from leakpipe.attacks.optimise import invert
from leakpipe.attacks.problem import simulated_trainings
from leakpipe.client.batches import make_batches
from leakpipe.client.local_update import LocalSettings, local_update
from leakpipe.client.update import ClientUpdate
from leakpipe.errors import LeakpipeError
from leakpipe.models.state import build_module, forward_training, initial_state
from leakpipe.params.attack_settings import AttackSettings
from leakpipe.params.defenses import DefenseSteps
from leakpipe.params.models import ModelParams
from tests.unit.attacking import changed, observe, random_images, small_model

DOUBLE = torch.float64
SIZES: dict[str, list[dict[str, int]]] = {
    "an image each": [{"images": 1}, {"images": 1}],
    "a step each": [{"images": 1}, {"images": 3}],
    "other numbers of steps": [{"images": 2, "batch_size": 1}, {"images": 3, "batch_size": 2, "epochs": 2}],
    "three clients": [{"images": 2}, {"images": 3, "batch_size": 2}, {"images": 1, "epochs": 3}],
}
AGGREGATES = pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)


def aggregation(clients: int, *before: dict[str, Any]) -> DefenseSteps:
    return DefenseSteps.model_validate([*before, {"kind": "secure-aggregation", "clients": clients}])


def mean_of(updates: list[ClientUpdate], images: list[int]) -> ClientUpdate:
    """By a plain loop."""

    def mean(part: str) -> dict[str, Tensor]:
        shares = [count / sum(images) for count in images]
        names = getattr(updates[0], part)
        return {n: sum(w * getattr(u, part)[n] for w, u in zip(shares, updates, strict=True)) for n in names}

    return ClientUpdate(mean("weights"), mean("statistics"), updates[0].steps)


def together(alone: list[Observation], **changes: Any) -> Observation:
    """Returns what an attacker who is told sees of clients that share only their mean."""
    update = mean_of([one.update for one in alone], [one.client.images for one in alone])
    cohort = [other.client for other in alone[1:]]
    return changed(alone[0], update=update, cohort=cohort, defense=aggregation(len(alone)), **changes)


def clients_of(sizes: list[dict[str, int]]) -> tuple[list[Observation], Tensor]:
    """Clients of random images, and all their images."""
    alone, images = [], []
    for number, size in enumerate(sizes):
        images.append(random_images(size["images"], seed=number + 1, dtype=DOUBLE))
        labels = [(number + position) % 3 for position in range(size["images"])]
        rest = {name: value for name, value in size.items() if name != "images"}
        alone.append(observe(small_model(dtype=DOUBLE), images[-1], labels, **rest))
    return alone, torch.cat(images)


@AGGREGATES
@pytest.mark.parametrize("objective", ["cosine", "l2", "relative-l2"])
def test_the_true_images_of_all_clients_explain_the_aggregate(sizes: list[dict[str, int]], objective: str) -> None:
    alone, truth = clients_of(sizes)
    seen = together(alone)
    terms = Objective(seen, AttackSettings(objective=objective, batch_norm_weight=1.0), seed=0)
    at_truth = terms.evaluate(truth, seen.candidate_labels).terms
    assert at_truth["update_distance"] < 1e-10
    assert at_truth["batch_statistics"] < 1e-10
    swapped = terms.evaluate(truth.roll(1, dims=0), seen.candidate_labels).terms
    another = terms.evaluate(torch.cat([truth[:-1], 1 - truth[-1:]]), seen.candidate_labels).terms
    assert min(swapped["update_distance"], another["update_distance"], another["batch_statistics"]) > 1e-5


@AGGREGATES
def test_the_order_is_one_clients_own(sizes: list[dict[str, int]]) -> None:
    """Schedules name candidates one client after the other, weighted by images."""
    alone, _ = clients_of(sizes)
    trainings = simulated_trainings(together(alone), AttackSettings(), seed=0)
    first = 0
    for seen, (schedule, share) in zip(alone, trainings, strict=True):
        assert schedule == [[first + position for position in step] for step in seen.client.assumed_schedule]
        assert share == pytest.approx(seen.client.images / sum(one.client.images for one in alone))
        first += seen.client.images
    assert simulated_trainings(alone[0], AttackSettings(), seed=0) == [(list(alone[0].client.assumed_schedule), 1.0)]


def test_orders_are_averaged_client_by_client() -> None:
    alone, _ = clients_of(SIZES["other numbers of steps"])
    trainings = simulated_trainings(together(alone), AttackSettings(orders=4), seed=0)
    assert [share for _, share in trainings] == pytest.approx([0.4, *[0.15] * 4])


@AGGREGATES
def test_statistics_of_an_aggregate_are_the_mean_over_all_steps(sizes: list[dict[str, int]]) -> None:
    """First layer, at a learning rate of nearly 0: Σ n_c Σ_i 0.9^(k_c−1−i) batch_ci over the sum of those weights."""
    state, settings = small_model(dtype=DOUBLE), LocalSettings(learning_rate=1e-12)
    alone, truth = clients_of(sizes)
    updates, weighted, total, first = [], torch.zeros(2, 3, dtype=DOUBLE), 0.0, 0
    for seen in alone:
        images, schedule = truth[first : first + seen.client.images], seen.client.assumed_schedule
        updates.append(local_update(state, make_batches(images, seen.client.labels, schedule), settings))
        for index, positions in enumerate(schedule):
            batch = forward_training(state, images[list(positions)])[1]["features.1"]
            weight = seen.client.images * 0.9 ** (len(schedule) - 1 - index)
            weighted += weight * torch.stack([batch.mean, batch.variance])
            total += weight
        first += seen.client.images
    seen = changed(together(alone), settings=settings, update=mean_of(updates, [one.client.images for one in alone]))
    found = Objective(seen, AttackSettings(batch_norm_weight=1.0), seed=0).statistics.target["features.1"]
    torch.testing.assert_close(torch.stack([found.mean, found.variance]), weighted / total)


def smooth_images(count: int, *, seed: int) -> Tensor:
    coarse = random_images(count, size=4, seed=seed, dtype=torch.float32)
    return interpolate(coarse, size=(16, 16), mode="bicubic").clamp(0, 1)


def similarity(found: Tensor, truth: Tensor) -> float:
    return float(structural_similarity(found[0, 0].numpy(), truth[0, 0].numpy(), data_range=1.0))


def test_searching_together_beats_taking_the_mean_for_one_clients() -> None:
    model = ModelParams(name="convnet-bn", widths=(12, 12), strides=(1, 2))
    state = initial_state(build_module(model, classes=3, image_size=16), seed=0)
    images = [smooth_images(1, seed=seed) for seed in (3, 4)]
    alone = [observe(state, image, [label]) for label, image in enumerate(images)]
    settings = AttackSettings(
        batch_norm_weight=1.0, layer_weighting=0.5, spectrum_decay=0.5, surrogate_slope=4.0, iterations=120
    )
    seen = together(alone)
    joint = invert(seen, settings, seed=0)
    naive = invert(changed(seen, cohort=(), defense=None), settings, seed=0)
    assert joint.images.shape == naive.images.shape == (1, 1, 16, 16)
    assert joint.labels.tolist() == [0]
    assert similarity(joint.images, images[0]) > similarity(naive.images, images[0]) + 0.1
    assert "The update is an aggregate: 2 candidates for its 2 clients were searched." in joint.notes


def test_labels_of_all_clients_may_be_searched_with_the_images() -> None:
    seen = together(clients_of(SIZES["a step each"])[0])
    unknown = changed(seen, labels=None)
    found = invert(unknown, AttackSettings(labels="joint", iterations=2), seed=0)
    assert found.images.shape == (1, 1, 8, 8)
    assert found.labels.shape == (1,)


UNFIT: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"row_space_weight": 1.0}, "row_space_weight: above 0 needs the rank of one client's update"),
    ({}, {"local_batches": "single"}, "local_batches: single is about one client's update"),
    ({}, {"labels": "recovered"}, "labels: can only be recovered from one client's update"),
    ({"labels": None}, {}, "labels: can only be recovered from one client's update"),
]


@pytest.mark.parametrize(("changes", "settings", "said"), UNFIT)
def test_what_reads_one_clients_update_is_refused(changes: dict[str, Any], settings: dict[str, Any], said: str) -> None:
    seen = changed(together(clients_of(SIZES["a step each"])[0]), **changes)
    with pytest.raises(LeakpipeError, match=f"^the update is an aggregate of 2 clients, but {said}[^\n]*$"):
        usable_settings(seen, AttackSettings(**settings))
    lone = changed(seen, cohort=(), defense=None)
    usable_settings(lone, AttackSettings(**settings))


def test_the_cohort_is_as_large_as_the_defence_says() -> None:
    alone = clients_of(SIZES["a step each"])[0]
    with pytest.raises(LeakpipeError, match=r"cohort: 1 other clients, expected 2 .* of 3 clients"):
        changed(together(alone), defense=aggregation(3))


def test_noise_is_averaged_with_the_updates() -> None:
    """Two clients' noise of deviation 0.5 at shares ¼ and ¾ has √(1 + 9)/8; a mean of clipped values has no bounds."""
    drawn = torch.Generator().manual_seed(0)
    noise = [torch.randn(100_000, generator=drawn) * 0.5 for _ in range(2)]
    update = ClientUpdate({"w": torch.ones(1)}, {"s": noise[0] / 4 + noise[1] * 3 / 4}, 1)
    private = {"kind": "dp-gaussian", "clip_norm": 2.0, "noise_multiplier": 0.25}
    found = adapt(update, aggregation(2, private), shares=(0.25, 0.75))
    assert found.statistic_noise["s"] == pytest.approx(update.statistics["s"].std().item(), rel=0.01)
    kept = adapt(update, aggregation(2, {"kind": "top-k", "share": 0.1}, private), shares=(0.25, 0.75))
    assert (kept.left, kept.weight_bounds) == (("top-k",), {})
    assert found.left == adapt(update, aggregation(2), shares=(0.25, 0.75)).left == ()
