"""Each deviation of the paper's released tool does what it says, against values computed by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, softplus

from leakpipe.attacks.objective import Objective
from leakpipe.attacks.observation import Observation
from leakpipe.client.batches import make_batches
from leakpipe.client.local_update import local_update
from leakpipe.models.state import forward_training
from leakpipe.params.attack_settings import AttackSettings
from tests.unit.attacking import CLIENT, explained_update, observe_small, random_images, searching

DOUBLE = torch.float64


def observing(**sizes: Any) -> Observation:
    return observe_small(dtype=DOUBLE, **{"images": 3, **sizes})


CANDIDATES = random_images(3, seed=7, dtype=DOUBLE)


def terms_of(observation: Observation, **settings: Any) -> Objective:
    return Objective(observation, AttackSettings(**settings), seed=0)


def image_gradient(observation: Observation, **settings: Any) -> torch.Tensor:
    images = CANDIDATES.clone().requires_grad_()
    objective = terms_of(observation, **settings).evaluate(images, observation.client.labels).objective
    return torch.autograd.grad(objective, images)[0]


@pytest.mark.parametrize("weight", [1.0, 1e-3])
@pytest.mark.parametrize("batch_size", [3, 2])
def test_detached_leaves_the_gradient_of_the_training_loss(weight: float, batch_size: int) -> None:
    """At full size whatever the term's weight, because it is not the term that has it."""
    observation = observing(batch_size=batch_size)
    images = CANDIDATES.clone().requires_grad_()
    loss = cross_entropy(forward_training(observation.before, images)[0], observation.client.labels)
    (expected,) = torch.autograd.grad(loss, images)
    found = image_gradient(observation, update_gradient="detached", objective_weight=weight)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)
    through = image_gradient(observation, objective_weight=weight)
    assert not torch.allclose(through, expected, rtol=0.1)


@pytest.mark.parametrize("weight", [1.0, 1e-3])
def test_detached_keeps_the_value_of_the_distance(weight: float) -> None:
    given = {"objective": "layer-norms", "objective_weight": weight}
    observation = observing(batch_size=2)
    values = [
        terms_of(observation, update_gradient=kind, **given).evaluate(CANDIDATES, observation.client.labels)
        for kind in ("detached", "through-update")
    ]
    assert values[0].objective.item() == pytest.approx(values[1].objective.item(), rel=1e-12)
    assert values[0].terms["update_distance"] == pytest.approx(values[1].terms["update_distance"], rel=1e-12)


def test_detached_still_differentiates_batch_statistics() -> None:
    """Loss and batch statistics, the latter of one pass over all candidates through the global model."""
    observation = observing()
    found = image_gradient(observation, update_gradient="detached", batch_norm_weight=1.0)
    whole = image_gradient(observation, batch_norm_weight=1.0, objective_weight=0.0)
    loss = image_gradient(observation, update_gradient="detached")
    torch.testing.assert_close(found, whole + loss)


def simulated(
    observation: Observation, images: torch.Tensor, moved: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    weights = {name: value + moved[name] for name, value in observation.before.weights.items()}
    state = observation.before.with_tensors(weights, observation.before.statistics)
    update = local_update(
        state, make_batches(images, observation.client.labels, observation.client.assumed_schedule), CLIENT
    )
    return {name: value + update.weights[name] for name, value in moved.items()}


@pytest.mark.parametrize("restarts", [1, 2])
def test_drifting_adds_up_the_simulated_updates(restarts: int) -> None:
    observation = observing(batch_size=2)
    search = searching(observation, global_model="drifting", restarts=restarts, step_size=0.05)
    state = search.start()
    drift = {name: torch.zeros_like(value) for name, value in observation.before.weights.items()}
    assert all(not value.any() for value in state.memory.values())
    for _ in range(2):
        for row in state.variables:
            drift = simulated(observation, row.view(3, 1, 8, 8), drift)
        state = search.advance(state)
        assert state.memory.keys() == drift.keys()
        for name, value in drift.items():
            torch.testing.assert_close(state.memory[name], value, rtol=1e-9, atol=1e-13)


def test_restored_does_not_drift() -> None:
    search = searching(observing(), restarts=1)
    assert search.advance(search.start()).memory == {}


def known_statistics(observation: Observation) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """One step from running mean 0 and variance 1: batch = running + Δ / momentum."""
    changes = {name: value.numpy() / 0.1 for name, value in observation.update.statistics.items()}
    return {
        layer: (changes[f"{layer}.running_mean"], 1 + changes[f"{layer}.running_var"])
        for layer in ("features.1", "features.4")
    }


@pytest.mark.parametrize("statistics_model", ["global", "updated"])
@pytest.mark.parametrize("variance", ["unbiased", "biased"])
def test_statistics_of_the_updated_model_and_biased_variances(statistics_model: str, variance: str) -> None:
    observation = observing()
    state = observation.before
    if statistics_model == "updated":
        weights = {name: value + observation.update.weights[name] for name, value in state.weights.items()}
        state = state.with_tensors(weights, state.statistics)
    _, seen = forward_training(state, CANDIDATES)
    expected = 0.0
    for layer, (mean, wanted) in known_statistics(observation).items():
        values = 3 * (4 * 4 if layer == "features.1" else 2 * 2)
        factor = (values - 1) / values if variance == "biased" else 1.0
        expected += np.linalg.norm(seen[layer].mean.numpy() - mean)
        expected += np.linalg.norm(factor * seen[layer].variance.numpy() - wanted)
    terms = terms_of(
        observation,
        statistics_model=statistics_model,
        variance=variance,
        batch_norm_weight=1.0,
        batch_norm_distance="absolute",
    )
    found = terms.evaluate(CANDIDATES, observation.client.labels).terms["batch_statistics"]
    assert found == pytest.approx(expected, rel=1e-9)


def test_a_single_batch_is_one_step_on_all_images() -> None:
    observation = observing(batch_size=1, epochs=2)
    (batch,) = make_batches(CANDIDATES, observation.client.labels, [[0, 1, 2]])
    expected = local_update(observation.before, [batch], CLIENT)
    found = explained_update(terms_of(observation, local_batches="single"), CANDIDATES, observation.client.labels)
    assert found.steps == 1
    torch.testing.assert_close(dict(found.weights), dict(expected.weights))
    torch.testing.assert_close(dict(found.statistics), dict(expected.statistics))


def test_saturated_loss_is_binary_cross_entropy_of_every_class() -> None:
    """−log σ(z), which is softplus(−z), meaned over images and classes; the step is its gradient's."""
    observation = observing()
    state = observation.before
    weights = {name: value.clone().requires_grad_() for name, value in state.weights.items()}
    logits, _ = forward_training(state.with_tensors(weights, state.statistics), CANDIDATES)
    gradients = torch.autograd.grad(softplus(-logits).mean(), list(weights.values()))
    ones = torch.ones(3, 3, dtype=DOUBLE)
    found = explained_update(terms_of(observation, client_loss="saturated-bce"), CANDIDATES, ones)
    for name, gradient in zip(weights, gradients, strict=True):
        torch.testing.assert_close(found.weights[name], -CLIENT.learning_rate * gradient)


def test_saturated_search_sets_every_class_as_a_target() -> None:
    observation = observe_small(images=3)
    search = searching(observation, client_loss="saturated-bce")
    state = search.start()
    found = search.advance(state).curves["update_distance"]
    terms = Objective(observation, AttackSettings(client_loss="saturated-bce"), seed=0)
    at_start = terms.evaluate(state.variables[0].view(3, 1, 8, 8), torch.ones(3, 3)).terms["update_distance"]
    assert found == [pytest.approx(at_start, rel=1e-5)]
    assert search.result(search.advance(state))[1].tolist() == [0, 1, 2]  # still called what was granted


@pytest.mark.parametrize(("kind", "mean", "deviation"), [("raw", 0.0, 1.0), ("normalized", 0.485, 0.229)])
def test_raw_candidates_are_what_the_network_sees(kind: str, mean: float, deviation: float) -> None:
    observation = observing()
    seen: list[torch.Tensor] = []
    features = observation.before.module.get_submodule("features")
    hook = features.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    terms_of(observation, candidate_input=kind, engine="autograd").evaluate(CANDIDATES, observation.client.labels)
    hook.remove()
    assert seen
    for network_input in seen:
        assert network_input.shape == (3, 3, 8, 8)
        torch.testing.assert_close(network_input[:, :1], (CANDIDATES - mean) / deviation)
