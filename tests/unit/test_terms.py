"""The attack's objective: zero at the truth where it is correct, its weighted terms, its gradient."""

from typing import Any

import numpy as np
import pytest
import torch

from leakpipe.attacks.objective import Objective
from leakpipe.attacks.observation import KnownClient, Observation
from leakpipe.attacks.presets import PRESETS
from leakpipe.attacks.problem import assumed_schedules
from leakpipe.attacks.terms.images import anisotropic_total_variation
from leakpipe.client.batches import make_batches
from leakpipe.client.local_update import LocalSettings, local_update
from leakpipe.client.update import ClientUpdate
from leakpipe.models.batchnorm import BatchStatistics
from leakpipe.models.state import forward_frozen, forward_training
from leakpipe.params.attack_settings import AttackSettings
from tests.unit.attacking import CLIENT, changed, explained_update, observe, observe_small, random_images, small_model

DOUBLE = torch.float64
SIZES: dict[str, dict[str, Any]] = {
    "one image": {"images": 1},
    "one step": {"images": 3},
    "two steps": {"images": 3, "batch_size": 2},
    "three epochs": {"images": 3, "batch_size": 2, "epochs": 3},
    "a known order": {"images": 3, "batch_size": 2, "epochs": 2, "schedule": [[2, 0], [1], [1, 0], [2]]},
}


def observing(**sizes: Any) -> Observation:
    return observe_small(dtype=DOUBLE, **sizes)


def true_images(observation: Observation) -> torch.Tensor:
    return random_images(observation.client.images, dtype=DOUBLE)


def other_images(observation: Observation) -> torch.Tensor:
    return random_images(observation.client.images, seed=7, dtype=DOUBLE)


def terms_of(observation: Observation, **settings: Any) -> Objective:
    return Objective(observation, AttackSettings(**settings), seed=0)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize(
    "settings",
    [
        {"objective": "cosine"},
        {"objective": "layer-cosine"},
        {"objective": "relative-l2"},
        {"objective": "l2"},
        {"objective": "layer-norms"},
        {"objective_weight": 0.0, "batch_norm_weight": 1.0},
        {"objective_weight": 0.0, "batch_norm_weight": 1.0, "batch_norm_distance": "absolute"},
        {"batch_norm_weight": 1.0, "surrogate_slope": 4.0},
    ],
    ids=lambda settings: " ".join(map(str, settings.values())),
)
def test_is_zero_at_the_true_images_and_nowhere_near(sizes: dict[str, Any], settings: dict[str, Any]) -> None:
    granted = {"schedule": None} | sizes
    observation = observing(**sizes)
    if granted["schedule"]:
        observation = changed(observation, schedule=granted["schedule"])
    terms = terms_of(observation, **settings)
    at_truth = terms.evaluate(true_images(observation).requires_grad_(), observation.client.labels).objective
    elsewhere = terms.evaluate(other_images(observation), observation.client.labels).objective
    assert abs(at_truth.item()) < 2e-5  # smoothed norms: √1e-12 of each tensor
    assert elsewhere.item() > 100 * abs(at_truth.item()) + 1e-4


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_the_published_tool_is_far_from_zero_at_the_truth(sizes: dict[str, Any]) -> None:
    observation = observing(**sizes)
    truth, ones = true_images(observation), torch.ones(observation.client.images, 3, dtype=DOUBLE)
    tool = Objective(observation, PRESETS["published-tool"].settings, seed=0).evaluate(truth, ones).terms
    right = (
        Objective(observation, PRESETS["bn-aware"].settings, seed=0).evaluate(truth, observation.client.labels).terms
    )
    if "schedule" not in sizes:
        assert right["update_distance"] + right["batch_statistics"] < 2e-5
    assert tool["update_distance"] > 0.1
    assert tool["batch_statistics"] > 0.1


ALL_TERMS = {
    "objective": "layer-norms",
    "objective_weight": 0.7,
    "batch_norm_weight": 0.3,
    "total_variation_weight": 0.2,
    "l2_weight": 0.05,
    "prior_weight": 1.5,
    "group_weight": 2.5,
    "restarts": 2,
}


def test_the_objective_is_the_weighted_sum_of_its_terms() -> None:
    observation = observing(**SIZES["two steps"])
    images, consensus = other_images(observation), true_images(observation)
    found = terms_of(observation, **ALL_TERMS).evaluate(images, observation.client.labels, consensus=consensus)
    array = images.numpy()
    expected = {
        "total_variation": np.abs(np.diff(array, axis=2)).mean() + np.abs(np.diff(array, axis=3)).mean(),
        "l2_norm": np.mean([np.linalg.norm(image) for image in array]),
        "prior_distance": ((array - 0.5) ** 2).mean(),
        "group_distance": ((array - consensus.numpy()) ** 2).mean(),
    }
    assert {name: found.terms[name] for name in expected} == pytest.approx(expected, rel=1e-9)
    weights = {
        "update_distance": 0.7,
        "batch_statistics": 0.3,
        "total_variation": 0.2,
        "l2_norm": 0.05,
        "prior_distance": 1.5,
        "group_distance": 2.5,
    }
    assert found.terms.keys() == weights.keys()
    assert found.objective.item() == pytest.approx(sum(weights[name] * found.terms[name] for name in weights))


@pytest.mark.parametrize("objective", ["l2", "layer-norms"])
def test_distances_with_a_unit_are_of_gradients(objective: str) -> None:
    """One step: ΔW over the learning rate is the gradient, whatever the client's learning rate."""
    observation = observing(images=2)
    images = other_images(observation)
    found = terms_of(observation, objective=objective).evaluate(images, observation.client.labels)
    (batch,) = make_batches(images, observation.client.labels, [[0, 1]])
    mine = local_update(observation.before, [batch], CLIENT).weights
    gaps = [((mine[n] - v) / CLIENT.learning_rate).numpy() for n, v in observation.update.weights.items()]
    norms = [np.linalg.norm(gap) for gap in gaps]
    expected = sum(norms) if objective == "layer-norms" else sum(norm**2 for norm in norms)
    assert found.terms["update_distance"] == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(
    "settings",
    [
        ALL_TERMS,
        {"objective": "cosine", "batch_norm_weight": 1.0},
        {"objective": "cosine", "batch_norm": "frozen", "batch_norm_weight": 1.0},
        {"objective": "relative-l2", "orders": 2, "total_variation": "isotropic", "total_variation_weight": 0.1},
        {"objective": "layer-cosine", "candidate_input": "raw"},
    ],
)
def test_gradient_equals_finite_differences(settings: dict[str, Any]) -> None:
    observation = observing(images=2, batch_size=1, epochs=2)
    terms, images = terms_of(observation, **settings), other_images(observation).requires_grad_()
    given = {"consensus": true_images(observation)} if "group_weight" in settings else {}
    objective = terms.evaluate(images, observation.client.labels, **given).objective
    (gradient,) = torch.autograd.grad(objective, images)
    along = torch.randn(images.shape, generator=torch.Generator().manual_seed(3), dtype=DOUBLE)
    step = 1e-6
    ahead, behind = (
        terms.evaluate(images.detach() + sign * step * along, observation.client.labels, **given).objective
        for sign in (1, -1)
    )
    assert (gradient * along).sum().item() == pytest.approx(((ahead - behind) / (2 * step)).item(), rel=1e-4)


def test_orders_are_averaged() -> None:
    observation = observing(images=3, batch_size=2, epochs=2)
    settings, images = AttackSettings(orders=3), other_images(observation)
    objective = Objective(observation, settings, seed=4)
    found = explained_update(objective, images, observation.client.labels)
    schedules = assumed_schedules(observation.client, settings, seed=4)
    each = [
        local_update(observation.before, make_batches(images, observation.client.labels, s), CLIENT) for s in schedules
    ]
    assert len(each) == 3
    assert found.steps == 4
    for part in ("weights", "statistics"):
        for name, value in getattr(found, part).items():
            expected = sum(getattr(update, part)[name] for update in each) / 3
            torch.testing.assert_close(value, expected)


def test_frozen_statistics_are_held_against_the_global_ones() -> None:
    """Absolute distance by numpy, of the frozen network's first layer inputs and the second's."""
    observation = observing(images=2)
    images = other_images(observation)
    settings = {"batch_norm": "frozen", "batch_norm_weight": 1.0, "batch_norm_distance": "absolute"}
    objective = terms_of(observation, **settings, engine="autograd")
    found = objective.evaluate(images, observation.client.labels)
    inputs: list[np.ndarray] = []
    module = observation.before.module
    hooks = [
        module.get_submodule(name).register_forward_pre_hook(lambda _, args: inputs.append(args[0].numpy()))
        for name in ("features.1", "features.4")
    ]
    forward_frozen(observation.before, images)
    for hook in hooks:
        hook.remove()
    expected = 0.0
    for values in inputs:  # running mean 0 and variance 1
        expected += np.linalg.norm(values.mean(axis=(0, 2, 3)))
        expected += np.linalg.norm(values.var(axis=(0, 2, 3), ddof=1) - 1)
    assert found.terms["batch_statistics"] == pytest.approx(expected, rel=1e-9)
    update = explained_update(objective, images, observation.client.labels)
    assert not any(value.any() for value in update.statistics.values())


def test_exact_statistics_are_the_target_where_granted() -> None:
    observation = observing(images=2)
    images = other_images(observation)
    _, seen = forward_training(observation.before, images)
    noisy = {name: value + 0.3 for name, value in observation.update.statistics.items()}
    update = ClientUpdate(observation.update.weights, noisy, 1)
    told = changed(observation, exact_statistics=seen, update=update)
    at = terms_of(told, batch_norm="exact", batch_norm_weight=1.0).evaluate(images, told.client.labels)
    assert at.terms["batch_statistics"] < 1e-20
    misled = terms_of(told, batch_norm_weight=1.0).evaluate(images, told.client.labels)
    assert misled.terms["batch_statistics"] > 0.1


@pytest.mark.parametrize(("distance", "said"), [("normalized", "left out"), ("absolute", "matched as 0")])
def test_impossible_variances_are_noted(distance: str, said: str) -> None:
    observation = observing(images=2)
    statistics = dict(observation.update.statistics)
    statistics["features.1.running_var"] = torch.tensor([-1.0, 0.0, -1.0], dtype=DOUBLE)
    update = ClientUpdate(observation.update.weights, statistics, 1)
    noisy = changed(observation, update=update)
    (note,) = terms_of(noisy, batch_norm_weight=1.0, batch_norm_distance=distance).notes
    assert note.startswith("2 channels")
    assert said in note
    assert terms_of(noisy).notes == terms_of(observation, batch_norm_weight=1.0).notes == []


def test_a_zero_update_leaves_its_distance_out() -> None:
    observation = observing(images=1)
    silent = {name: torch.zeros_like(value) for name, value in observation.update.weights.items()}
    update = ClientUpdate(silent, observation.update.statistics, 1)
    told = changed(observation, update=update)
    found = terms_of(told, batch_norm_weight=1.0).evaluate(other_images(told), told.client.labels)
    assert found.terms.keys() == {"batch_statistics", "total_variation"}
    assert found.objective.item() == found.terms["batch_statistics"] > 0


def test_the_client_is_simulated_as_it_trained() -> None:
    """Learning rate and momentum are the client's own, not defaults."""
    settings = LocalSettings(learning_rate=0.3, batch_norm_momentum=0.4)
    state, images, labels = small_model(dtype=DOUBLE), random_images(2, dtype=DOUBLE), torch.tensor([0, 1])
    update = local_update(state, make_batches(images, labels, [[0], [1]]), settings)
    observation = Observation(
        before=state, update=update, settings=settings, image_shape=(1, 8, 8),
        client=KnownClient(images=2, batch_size=1, epochs=1, labels=labels),
    )  # fmt: skip
    objective = terms_of(observation, batch_norm_weight=1.0, engine="autograd")
    found = explained_update(objective, images, labels)
    torch.testing.assert_close(dict(found.weights), dict(update.weights))
    torch.testing.assert_close(dict(found.statistics), dict(update.statistics))
    assert objective.evaluate(images, labels).objective.item() == pytest.approx(0, abs=1e-12)


def test_statistics_by_their_weighted_mean_are_those_of_several_steps() -> None:
    """The candidates' and the target's come the same way out of running statistics: m(1−m)^(k−1−i)."""
    observation = observing(images=2, batch_size=1)
    first, second = true_images(observation)
    weights = np.array([0.9, 1.0]) / 1.9
    target = terms_of(observation, batch_norm_weight=1.0).statistics.target["features.1"]
    means = [
        forward_training(observation.before, image[None])[1]["features.1"].mean.numpy() for image in (first, second)
    ]
    # the second step's first layer has moved by one step of SGD: take it from there
    moved = local_update(observation.before, make_batches(first[None], observation.client.labels[:1], [[0]]), CLIENT)
    after = {name: value + moved.weights[name] for name, value in observation.before.weights.items()}
    state = observation.before.with_tensors(after, observation.before.statistics)
    means[1] = forward_training(state, second[None])[1]["features.1"].mean.numpy()
    assert isinstance(target, BatchStatistics)
    assert target.mean.numpy() == pytest.approx(weights[0] * means[0] + weights[1] * means[1], rel=1e-9)


def test_total_variation_may_fade_with_the_distance_of_updates() -> None:
    """D · (1 + w · TV): the term is the product, and it is differentiated as one."""
    seen = observe(small_model(dtype=torch.float64), random_images(2, dtype=torch.float64), [0, 1])
    candidates = random_images(2, seed=7, dtype=torch.float64).requires_grad_()
    assert seen.client.labels is not None
    found = []
    for scale in ("fixed", "distance"):
        settings = AttackSettings(total_variation_weight=3.0, total_variation_scale=scale)
        evaluation = Objective(seen, settings, seed=0).evaluate(candidates, seen.client.labels)
        found.append((evaluation, torch.autograd.grad(evaluation.objective, candidates)[0]))
    (fixed, slope), (fading, slope_of_product) = found
    distance, variation = fixed.terms["update_distance"], fixed.terms["total_variation"]
    assert fading.terms["total_variation"] == pytest.approx(distance * variation)
    assert fading.objective.item() == pytest.approx(distance * (1 + 3 * variation))
    (variation_slope,) = torch.autograd.grad(anisotropic_total_variation(candidates), candidates)
    distance_slope = slope - 3 * variation_slope
    expected = distance_slope * (1 + 3 * variation) + 3 * distance * variation_slope
    torch.testing.assert_close(slope_of_product, expected)


@pytest.mark.parametrize("weighting", [0.0, 0.4, 1.0])
def test_layer_weighting_scales_each_tensor_by_its_own_norm(weighting: float) -> None:
    """1 − cosine of the concatenation of every tensor over ‖ΔW_l‖^weighting, by numpy."""
    seen = observe(small_model(dtype=torch.float64), random_images(2, dtype=torch.float64), [0, 1])
    candidates = random_images(2, seed=7, dtype=torch.float64)
    terms = Objective(seen, AttackSettings(layer_weighting=weighting), seed=0)
    assert seen.client.labels is not None
    mine = local_update(
        seen.before, make_batches(candidates, seen.client.labels, seen.client.assumed_schedule), CLIENT
    ).weights
    scaled = [
        [part[name].numpy().ravel() / seen.update.weights[name].norm().item() ** weighting for name in mine]
        for part in (mine, seen.update.weights)
    ]
    a, b = (np.concatenate(part) for part in scaled)
    expected = 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert terms.evaluate(candidates, seen.client.labels).terms["update_distance"] == pytest.approx(expected, abs=1e-12)
