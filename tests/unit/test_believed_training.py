"""Attacks read the update of a client that does not train by plain SGD."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from leakpipe.attacks.clipped_values import read_clipped
from leakpipe.attacks.engines.autograd import Autograd
from leakpipe.attacks.labels import recover_label_counts
from leakpipe.attacks.objective import Objective
from leakpipe.attacks.observation import Observation
from leakpipe.attacks.plain_update import read_training
from leakpipe.attacks.terms.row_space import RowSpaceTerm
from leakpipe.client.batches import Batch
from leakpipe.client.local_update import LocalSettings, local_update
from leakpipe.errors import LeakpipeError
from leakpipe.models.state import ModelState
from leakpipe.params.attack_settings import AttackSettings
from leakpipe.params.reading import parse_section
from leakpipe.params.training import TrainingParams
from tests.unit.attacking import CLIENT, observe, observe_small, random_images, small_model

DOUBLE = torch.float64
MOMENTUM = {"kind": "sgd", "momentum": 0.9, "weight_decay": 0.1}
LINEAR: dict[str, dict[str, Any]] = {
    "momentum": {"optimizer": MOMENTUM},
    "nesterov": {"optimizer": {**MOMENTUM, "nesterov": True}},
    "fedprox": {"proximal_weight": 0.3},
    "accumulation": {"accumulation": 4},
    "schedule": {"schedule": {"kind": "linear", "start_factor": 0.3}},
    "clipping": {"clipping": {"kind": "norm", "limit": 0.05}, "optimizer": MOMENTUM},
    "loss": {"loss": {"label_smoothing": 0.2, "factor": 4.0, "reduction": "sum"}, "optimizer": MOMENTUM},
}
SIMULATED: dict[str, dict[str, Any]] = {
    "adam": {"optimizer": {"kind": "adam"}},
    "adamw": {"optimizer": {"kind": "adamw", "weight_decay": 0.3}},
    "bf16": {"precision": "bf16"},
}
VALUES: dict[str, Any] = {"clipping": {"kind": "value", "limit": 0.1}, "optimizer": MOMENTUM}


def trained(content: dict[str, Any]) -> LocalSettings:
    return replace(CLIENT, training=parse_section(TrainingParams, content, source="test"))


def objective_of(observation: Observation, **settings: Any) -> Objective:
    return Objective(observation, AttackSettings(**settings), seed=0)


def distance(objective: Objective, observation: Observation, images: torch.Tensor) -> float:
    assert observation.client.labels is not None
    return objective.evaluate(images, observation.client.labels).terms["update_distance"]


@pytest.mark.parametrize("content", LINEAR.values(), ids=LINEAR)
def test_one_step_is_read_as_the_plain_sgd_that_its_gradient_makes(content: dict[str, Any]) -> None:
    """So the double backward knows it; clipping leaves the direction."""
    seen = observe_small(dtype=DOUBLE, trained=trained(content))
    objective = objective_of(seen)
    assert objective.notes == []
    images = random_images(2, dtype=DOUBLE)
    loss = {"loss": content["loss"]} if "loss" in content else {}
    plain = local_update(seen.before, [Batch(images, seen.client.labels)], trained(loss))  # type: ignore[arg-type]
    found = objective.problem.adapted_update.weights
    ratio = 1.0
    if "clipping" in content:
        ratio = float(found["head.weight"].norm() / plain.weights["head.weight"].norm())
        assert ratio < 0.9
    for name, value in plain.weights.items():
        torch.testing.assert_close(found[name], ratio * value, rtol=1e-6, atol=1e-12)
    assert distance(objective, seen, images) == pytest.approx(0, abs=1e-9)


def test_values_that_were_clipped_are_bounds_and_the_rest_is_the_gradient() -> None:
    """A limit has no slope: candidates would not be led by a value that they have on the wrong side of it."""
    seen = observe_small(dtype=DOUBLE, trained=trained(VALUES))
    objective, truth = objective_of(seen), random_images(2, dtype=DOUBLE)
    batch = Batch(truth, seen.client.labels)  # type: ignore[arg-type]
    plain = local_update(seen.before, [batch], CLIENT).weights
    limit, clipped, known = CLIENT.learning_rate * 0.1, 0, objective.problem.clipped
    assert known is not None
    for name, (lower, upper) in known.bounds.items():
        beyond, gradient = plain[name].abs() >= limit, plain[name] / limit
        assert bool((lower <= gradient + 1e-6).all() and (gradient - 1e-6 <= upper).all())
        torch.testing.assert_close(lower[~beyond], upper[~beyond])
        assert not bool((lower.isfinite() & upper.isfinite())[beyond].any())
        clipped += int(beyond.sum())
    moved = sum(int((value != 0).sum()) for value in plain.values())
    assert known.within == pytest.approx(1 - clipped / moved)
    assert 20 < clipped < 0.9 * moved
    assert distance(objective, seen, truth) < 1e-3
    wrong = random_images(2, dtype=DOUBLE, seed=5).requires_grad_()
    (slope,) = torch.autograd.grad(objective.evaluate(wrong, batch.labels).objective, wrong)
    assert bool(slope.any())
    assert distance(objective, seen, wrong.detach()) > 0.02


def test_a_limit_that_no_value_reached_leaves_plain_sgd() -> None:
    objective = objective_of(observe_small(trained=trained({"clipping": {"kind": "value", "limit": 1e6}})))
    assert (objective.problem.clipped, objective.notes) == (None, [])


@pytest.mark.parametrize(("decay", "limit"), [(0.0, None), (0.1, 1e-6)])
def test_signs_of_adam_need_no_limit_unless_its_decay_is_in_them(decay: float, limit: float | None) -> None:
    optimizer = {"kind": "adam", "weight_decay": decay}
    client = trained({"clipping": {"kind": "value", "limit": 1e-6}, "optimizer": optimizer})
    believed = objective_of(observe_small(trained=client)).problem.assumed_training.training
    assert (believed.clipping.limit if believed.clipping else None) == limit
    assert believed.optimizer == client.training.optimizer


def test_rounded_differences_near_the_limit_are_read_as_clipped() -> None:
    """Differences of float32 weights near 1 are multiples of 6e-8, here a twentieth of the limit and more."""
    weights = {"w": torch.tensor([1.0, 1.0, -1.0, 1e-3, 1e-3, 8.0])}
    trained = {"w": torch.tensor([1.04e-6, 0.6e-6, -1.04e-6, 1.04e-6, 0.99e-6, 0.3e-6])}
    clipped = {name: value.clamp(-1e-6, 1e-6) for name, value in trained.items()}
    shared = {name: (weights[name] + value) - weights[name] for name, value in clipped.items()}
    assert 0 < float(shared["w"][0]) < 0.96e-6
    known = read_clipped(shared, weights, 1e-6)
    assert known is not None
    lower, upper = known.bounds["w"]
    assert lower.isinf().tolist() == [False, False, True, False, False, False]
    assert upper.isinf().tolist() == [True, False, False, True, False, False]
    assert bool((lower <= trained["w"] / 1e-6 + 0.5).all() and (trained["w"] / 1e-6 - 0.5 <= upper).all())


@pytest.mark.parametrize("content", SIMULATED.values(), ids=SIMULATED)
def test_other_training_is_simulated_and_explains_the_truth_best(content: dict[str, Any]) -> None:
    seen = observe_small(trained=trained(content))
    objective = objective_of(seen, adam_softening=0.0)
    assert "plain SGD in float32" in " ".join(objective.notes)
    truth, other = random_images(2, dtype=torch.float32), random_images(2, dtype=torch.float32, seed=5)
    assert distance(objective, seen, truth) == pytest.approx(0, abs=1e-4)
    assert distance(objective, seen, other) > 0.02


@pytest.mark.parametrize("objective", ["l2", "layer-norms", "relative-l2"])
def test_length_counts_only_where_clipping_left_it(objective: str) -> None:
    """Clipped gradients are simulated where the objective compares lengths; unclipped ones are read."""
    for limit, notes in ((0.05, 1), (1e6, 0)):
        seen = observe_small(dtype=DOUBLE, trained=trained({"clipping": {"kind": "norm", "limit": limit}}))
        found = objective_of(seen, objective=objective)
        assert len(found.notes) == notes
        assert distance(found, seen, random_images(2, dtype=DOUBLE)) == pytest.approx(0, abs=1e-5)


def test_softened_signs_move_candidates() -> None:
    """The gradient of the distance is that of finite differences, and many times larger than that of nearly signs."""
    seen = observe_small(dtype=DOUBLE, trained=trained(SIMULATED["adam"]))
    start = random_images(2, dtype=DOUBLE, seed=5)
    sizes = []
    for softening in (0.0, 0.1):
        images = start.clone().requires_grad_()
        objective_of(seen, adam_softening=softening).evaluate(images, seen.client.labels).objective.backward()  # type: ignore[arg-type]
        assert images.grad is not None
        sizes.append(float(images.grad.norm()))
    assert sizes[1] > 100 * sizes[0]


def test_an_attack_may_believe_otherwise() -> None:
    """An Adam client that is taken for one of plain SGD."""
    seen = observe_small(trained=trained(SIMULATED["adam"]))
    objective = objective_of(seen, training=TrainingParams())
    assert objective.problem.assumed_training.training == TrainingParams()
    assert objective.notes == []
    assert distance(objective, seen, random_images(2, dtype=torch.float32)) > 0.1


def test_decay_of_several_steps_is_taken_off_both_sides() -> None:
    content = {"optimizer": {"kind": "sgd", "momentum": 0.5, "weight_decay": 100.0}}
    seen = observe_small(batch_size=1, dtype=DOUBLE, trained=replace(trained(content), learning_rate=1e-4))
    truth, other = random_images(2, dtype=DOUBLE), random_images(2, dtype=DOUBLE, seed=5)
    objective = objective_of(seen)
    assert distance(objective, seen, truth) == pytest.approx(0, abs=1e-9)
    assert distance(objective, seen, other) > 0.02
    raw = Objective(seen, AttackSettings(), seed=0)
    raw.problem.drift = {}
    raw.problem.observed = seen.update.weights
    raw.engine = Autograd(raw.problem)
    assert distance(raw, seen, other) < 0.01  # nearly all of the update is decay


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("steps", [1, 3])
def test_gain_and_drift_have_closed_forms(momentum: float, steps: int) -> None:
    """Gain η Σ_k (1 + m + … + m^k); drift W·((1 − ηλ)^steps − 1) without momentum."""
    content = {"optimizer": {"kind": "sgd", "momentum": momentum, "weight_decay": 0.2}}
    weights = {"w": torch.tensor([1.0, -2.0], dtype=DOUBLE)}
    reading = read_training(weights, trained(content), steps)
    rate = CLIENT.learning_rate
    assert reading.gain == pytest.approx(rate * sum(sum(momentum**j for j in range(k + 1)) for k in range(steps)))
    if not momentum:
        torch.testing.assert_close(reading.drift["w"], weights["w"] * ((1 - rate * 0.2) ** steps - 1))


def test_row_spaces_are_those_of_the_gradient() -> None:
    """Weight decay of full rank is taken off before ranks are counted."""
    content = {"optimizer": {"kind": "sgd", "weight_decay": 5.0}}
    images, state = random_images(1, size=8, dtype=torch.float32), small_model(size=8)
    settings = AttackSettings(row_space_weight=1.0)

    def spaces(client: LocalSettings) -> dict[str, torch.Tensor]:
        seen = observe(state, images, [0], trained=client)
        return RowSpaceTerm(Objective(seen, settings, seed=0).problem).spaces

    plain, decayed = spaces(CLIENT), spaces(trained(content))
    assert plain.keys() == decayed.keys()
    for name, basis in plain.items():
        assert basis.shape == decayed[name].shape
        torch.testing.assert_close(basis @ basis.T, decayed[name] @ decayed[name].T, rtol=0, atol=1e-3)


LOSSES: dict[str, dict[str, Any]] = {
    "mean": {},
    "half": {"factor": 0.5},
    "four times": {"factor": 4.0},
    "sum": {"reduction": "sum"},
    "weights": {"class_weights": [1.0, 4.0, 0.5, 2.0, 1.0]},
    "summed weights": {"class_weights": [1.0, 4.0, 0.5, 2.0, 1.0], "reduction": "sum", "factor": 3.0},
    "smoothing": {"label_smoothing": 0.2},
    "both": {"label_smoothing": 0.1, "class_weights": [1.0, 2.0, 0.5, 2.0, 1.0]},
    "binary": {"kind": "binary-cross-entropy"},
    "summed binary": {"kind": "binary-cross-entropy", "reduction": "sum", "class_weights": [1.0, 2.0, 3.0, 1.0, 2.0]},
}
CLASSES = 5


def flat_head(state: ModelState) -> ModelState:
    """With predictions that hardly depend on the image: counts are then exact whatever the guess."""
    weights = {**state.weights, "head.weight": state.weights["head.weight"] * 1e-3}
    return state.with_tensors(weights, state.statistics)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("optimizer", [{"kind": "sgd"}, MOMENTUM], ids=["sgd", "momentum"])
@pytest.mark.parametrize("labels", [[3], [0, 0, 2], [1, 1, 3, 4, 4, 4]])
def test_labels_are_counted_whatever_the_loss(
    loss: dict[str, Any], optimizer: dict[str, Any], labels: list[int]
) -> None:
    images, state = random_images(len(labels), dtype=torch.float32), flat_head(small_model(classes=CLASSES))
    client = trained({"loss": loss, "optimizer": optimizer})
    found = recover_label_counts(observe(state, images, labels, trained=client), images)
    wanted = np.bincount(labels, minlength=CLASSES)
    assert found.guesses[0] == tuple(wanted)
    assert found.estimate.numpy() == pytest.approx(wanted, abs=0.05)


def test_counts_of_several_steps_with_momentum() -> None:
    images, labels, state = random_images(4, dtype=torch.float32), [0, 2, 2, 4], flat_head(small_model(classes=CLASSES))
    client = replace(trained({"optimizer": MOMENTUM, "loss": {"reduction": "sum"}}), learning_rate=1e-4)
    seen = observe(state, images, labels, batch_size=2, trained=client)
    assert recover_label_counts(seen, images).guesses[0] == (1, 0, 2, 0, 1)


@pytest.mark.parametrize("content", [SIMULATED["adam"], VALUES, LINEAR["clipping"]])
def test_labels_of_several_images_that_an_update_does_not_tell(content: dict[str, Any]) -> None:
    """One image's label is in the signs; of several, the sentence says why not."""
    images, state = random_images(3, dtype=torch.float32), small_model(classes=CLASSES)
    alone = observe(state, images[:1], [3], trained=trained(content))
    assert recover_label_counts(alone, images[:1]).guesses == [(0, 0, 0, 1, 0)]
    with pytest.raises(LeakpipeError, match=r"labels: of 3 images cannot be counted, (adam|gradient clipping) leaves"):
        recover_label_counts(observe(state, images, [0, 0, 3], trained=trained(content)), images)


def test_over_confident_prediction_of_a_smoothed_label_is_in_doubt() -> None:
    """The own class's entry is then positive: the guesses hold both."""
    state = flat_head(small_model(classes=2))
    state = state.with_tensors({**state.weights, "head.bias": torch.tensor([6.0, 0.0])}, state.statistics)
    images, client = random_images(1, dtype=torch.float32), trained({"loss": {"label_smoothing": 0.3}})
    seen = observe(state, images, [0], trained=client)
    assert float(seen.update.weights["head.bias"][0]) < 0  # trained away from its own class
    assert recover_label_counts(seen, images).guesses[0] == (1, 0)


@pytest.mark.parametrize("engine", ["double-backward", "autograd"])
def test_of_one_smoothed_label_either_sign_of_the_gradient_is_matched(engine: str) -> None:
    """An over-confident prediction turns the gradient: candidates that are less confident would be led away from it."""
    client = trained({"loss": {"label_smoothing": 0.3}})
    seen = observe(small_model(dtype=DOUBLE), random_images(1, dtype=DOUBLE), [0], trained=client)
    opposite = {name: -value for name, value in seen.update.weights.items()}
    for weights in (seen.update.weights, opposite):
        update = replace(seen.update, weights=weights)
        objective = objective_of(replace(seen, update=update), engine=engine)
        assert distance(objective, seen, random_images(1, dtype=DOUBLE)) == pytest.approx(0, abs=1e-9)
