"""Observations are made to fit or refused in one sentence, networks are tried, and wrong beliefs are noticed."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from leakpipe.attacks.observation import Observation
from leakpipe.attacks.optimise import invert
from leakpipe.attacks.rehearsal import rehearse
from leakpipe.client.local_update import LocalSettings
from leakpipe.client.update import ClientUpdate
from leakpipe.errors import LeakpipeError
from leakpipe.models.state import ModelState
from leakpipe.params.attack_settings import AttackSettings
from leakpipe.params.defenses import DefenseSteps
from leakpipe.params.training import TrainingParams
from tests.benchmarks import beliefs
from tests.unit.attacking import CLIENT, changed, observe, observe_small, random_images
from tests.unit.test_any_module import Tied

SEEN = observe_small(images=2)


def with_tensors(change: Callable[[Any], Any], *, only: str = "") -> ClientUpdate:
    parts = [
        {name: change(value) if only in name else value for name, value in part.items()}
        for part in (SEEN.update.weights, SEEN.update.statistics)
    ]
    return ClientUpdate(*parts, SEEN.update.steps)


def renamed(prefix: str) -> ClientUpdate:
    parts = [
        {prefix + name: value for name, value in part.items()}
        for part in vars(SEEN.update).values()
        if isinstance(part, dict)
    ]
    return ClientUpdate(*parts, SEEN.update.steps)


def with_value(tensor: Tensor, value: float) -> Tensor:
    tensor = tensor.clone()
    tensor.view(-1)[0] = value
    return tensor


def small_network(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), *layers, nn.Flatten(), nn.Linear(144, 3))


def seen_of(network: nn.Module, **options: Any) -> Observation:
    return observe(ModelState.of(network, **options), random_images(2, dtype=torch.float32), [0, 2])


FITTED: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, ""),
    **{
        f"the prefix {prefix}": ({"update": renamed(prefix)}, f"begin with '{prefix}'")
        for prefix in ("module.", "_module.", "model.")
    },
    "the prefix _orig_mod.": ({"update": renamed("_orig_mod.")}, ""),  # says nothing about a tensor's place
    "arrays": ({"update": with_tensors(lambda value: value.numpy())}, ""),
    "float64": ({"update": with_tensors(Tensor.double)}, "in float64 were taken as float32: the model's dtype"),
    "float16": ({"update": with_tensors(Tensor.half)}, "in float16 were taken as float32: what rounding lost"),
    "bfloat16": ({"update": with_tensors(Tensor.bfloat16)}, "in bfloat16 were taken as float32: what rounding lost"),
    "counters": (
        {
            "update": ClientUpdate(
                SEEN.update.weights, {**SEEN.update.statistics, "features.1.num_batches_tracked": torch.tensor(1)}, 1
            )
        },
        "",
    ),
    "an array of labels": ({"labels": np.array([0, 1], dtype=np.int32)}, ""),
    "a prior in float64": ({"prior": np.full((2, 1, 8, 8), 0.5)}, ""),
}


@pytest.mark.parametrize(("changes", "said"), FITTED.values(), ids=FITTED)
def test_what_fits_after_a_conversion_is_converted_and_said(changes: dict[str, Any], said: str) -> None:
    found = changed(SEEN, **changes)
    notes = " ".join(found.notes)
    assert (said in notes) if said else notes == ""
    for part in ("weights", "statistics"):
        expected = getattr(SEEN.update, part)
        assert getattr(found.update, part).keys() == expected.keys()
        for name, value in getattr(found.update, part).items():
            torch.testing.assert_close(value, expected[name], rtol=0.01, atol=1e-4)
            assert value.dtype == torch.float32
    assert found.client.labels is not None
    assert found.client.labels.dtype == torch.int64
    assert found.client.prior is not None
    assert found.client.prior.dtype == torch.float32
    assert replace(found).notes == found.notes, "notes stay, and are not said twice"


def test_a_model_in_half_precision_is_taken_in_single() -> None:
    network = small_network(nn.ReLU()).half()
    state = ModelState.of(network)
    update = observe(ModelState.of(network.float()), random_images(2, dtype=torch.float32), [0, 2]).update
    found = changed(replace(seen_of(network), before=state, update=update))
    assert "float16 tensors were taken as float32" in found.notes[0]
    assert {value.dtype for value in found.before.weights.values()} == {torch.float32}
    assert {value.dtype for value in state.weights.values()} == {torch.float16}
    assert not any("fails" in note for note in rehearse(found))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "whole numbers": (
        {"update": with_tensors(lambda value: (127 * value).to(torch.int8), only="head.weight")},
        "update: weights: 'head.weight' is int8, expected floating-point numbers; dequantise it",
    ),
    "NaN": (
        {"update": with_tensors(lambda value: with_value(value, float("nan")), only="head.bias")},
        "update: weights: 'head.bias': holds NaN, expected finite values",
    ),
    "infinity": (
        {"update": with_tensors(lambda value: with_value(value, -float("inf")), only="running_var")},
        "update: statistics: 'features.1.running_var': holds infinity, expected finite values",
    ),
    "no tensor": ({"update": with_tensors(Tensor.tolist, only="head.bias")}, "'head.bias': list, expected a tensor"),
    "no learning rate": (
        {"settings": LocalSettings(learning_rate=0.0)},
        "learning_rate: 0.0, expected a number above 0",
    ),
    "a learning rate below 0": ({"settings": LocalSettings(learning_rate=-1.0)}, "learning_rate: -1.0, expected"),
    "a momentum of 0": (
        {"settings": replace(CLIENT, batch_norm_momentum=0.0)},
        r"batch_norm_momentum: 0.0, expected a number in \(0, 1\]",
    ),
    "a momentum above 1": ({"settings": replace(CLIENT, batch_norm_momentum=10.0)}, "batch_norm_momentum: 10.0"),
    "a prior of bytes": ({"prior": torch.zeros(2, 1, 8, 8, dtype=torch.uint8)}, "prior: torch.uint8.* divide by 255"),
    "a prior above 1": ({"prior": torch.full((2, 1, 8, 8), 255.0)}, r"values from 255 to 255, expected \[0, 1\]"),
    "a prior with NaN": ({"prior": torch.full((2, 1, 8, 8), float("nan"))}, "prior: holds NaN"),
    "labels with fractions": ({"labels": torch.tensor([0.0, 1.0])}, "labels: torch.float32, expected class indices"),
    "labels below 0": ({"labels": torch.tensor([0, -1])}, r"labels: \[0, -1\], expected class indices from 0 on"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_fit_is_refused_in_one_sentence(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(LeakpipeError, match=message) as refusal:
        changed(SEEN, **changes)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("moved", [0.0, 1.0])
def test_frozen_and_shared_parameters_of_a_whole_state(moved: float) -> None:
    """As who subtracts two `state_dict`s has them: with the frozen ones, and every name of a shared one."""
    seen = seen_of(Tied())
    extra = {"frozen.bias": torch.full((5,), moved), "third.weight": seen.update.weights["second.weight"]}
    update = replace(seen.update, weights={**seen.update.weights, **extra})
    if moved:
        with pytest.raises(LeakpipeError, match=r"'frozen.bias' moved, but .* is frozen"):
            replace(seen, update=update)
    else:
        assert replace(seen, update=update).update.weights.keys() == seen.update.weights.keys()


class Remembering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seen = 0.0

    def forward(self, values: Tensor) -> Tensor:
        self.seen += 1.0
        return values * self.seen


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = small_network()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.body(images), images


UNFIT: dict[str, tuple[Callable[[], Observation], str]] = {
    "dropout": (
        lambda: seen_of(small_network(nn.Dropout(0.5))),
        r"model: 2.p = 0.5 drops values at random, .* ModelState.of\(network, dropout=False\)",
    ),
    "rarely dropping": (lambda: seen_of(small_network(nn.Dropout2d(1e-6))), "2.p = 1e-06 drops values at random"),
    "random numbers": (lambda: seen_of(small_network(Noisy())), "two passes of the same images differ"),
    "memory": (lambda: seen_of(small_network(Remembering())), "two passes of the same images differ"),
    "other images": (
        lambda: replace(seen_of(small_network()), image_shape=(1, 9, 9), client=replace(SEEN.client, prior=None)),
        r"a pass of images of shape \(2, 1, 9, 9\) fails .*, expected logits",
    ),
    "a pair": (
        lambda: replace(seen_of(small_network()), before=ModelState.of(Pair())),
        "model: returns tuple, expected logits",
    ),
    "labels of other classes": (lambda: changed(SEEN, labels=torch.tensor([0, 3])), "expected class indices below 3"),
}


class Noisy(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return values + torch.rand_like(values)


@pytest.mark.parametrize(("make", "message"), UNFIT.values(), ids=UNFIT)
def test_networks_that_cannot_be_simulated_are_refused_in_one_sentence(
    make: Callable[[], Observation], message: str
) -> None:
    with pytest.raises(LeakpipeError, match=message) as refusal:
        rehearse(make())
    assert "\n" not in str(refusal.value)


def test_dropout_that_is_believed_away_is_rehearsed() -> None:
    assert doubts(seen_of(small_network(nn.Dropout(0.5)), dropout=False)) == []


def test_momentum_of_the_network_itself_is_compared() -> None:
    network = small_network()
    network[1].momentum = 0.01
    (note,) = [note for note in rehearse(seen_of(network)) if "momentum 0.01" in note]
    assert "believed training 0.1: check batch_norm_momentum" in note


def test_a_cumulative_average_is_read_off_the_counters() -> None:
    network = small_network()
    network[1].num_batches_tracked += 4
    cumulative = replace(CLIENT, batch_norm_momentum=None)  # type: ignore[arg-type]
    found = replace(seen_of(network), settings=cumulative)
    assert found.settings.batch_norm_momentum == pytest.approx(1 / 5)
    assert "taken as 0.2" in found.notes[0]
    with pytest.raises(LeakpipeError, match=r"None .* over 2 local steps, expected one step"):
        replace(observe_small(images=2, epochs=2), settings=cumulative)


def test_weights_without_a_gradient_are_named() -> None:
    network = small_network()
    network.register_parameter("spare", nn.Parameter(torch.ones(3)))
    (note,) = doubts(seen_of(network))
    assert "1 of 7 weights get no gradient on plausible images (spare)" in note
    seen = seen_of(network)
    moved = replace(seen.update, weights={**seen.update.weights, "spare": torch.full((3,), 0.01)})
    assert "1 of them moved in the update all the same" in rehearse(replace(seen, update=moved))[0]


def test_notes_reach_the_reconstruction() -> None:
    seen = observe_small(images=1)
    flipped = {name: -value.half() for name, value in seen.update.weights.items()}
    notes = invert(
        replace(seen, update=replace(seen.update, weights=flipped)), AttackSettings(iterations=2), seed=0
    ).notes
    assert any("float16" in note for note in notes)
    assert any("sign is flipped" in note for note in notes)


@pytest.mark.parametrize("believed", [None, TrainingParams()])
def test_the_training_that_the_attack_believes_in_is_rehearsed(believed: TrainingParams | None) -> None:
    adam = TrainingParams.model_validate({"optimizer": {"kind": "adam"}})
    seen = observe_small(images=1, trained=replace(CLIENT, training=adam))
    notes = " ".join(invert(seen, AttackSettings(iterations=1, training=believed), seed=0).notes)
    assert ("not by the believed SGD" in notes) == (believed is not None)


def test_weight_decay_that_is_believed_is_no_doubt_about_the_head() -> None:
    """Decay moves the head here many times as far as its gradient does."""
    decay = TrainingParams.model_validate({"optimizer": {"kind": "sgd", "weight_decay": 10.0}})
    seen = observe_small(images=1, trained=replace(CLIENT, training=decay))
    assert doubts(seen) == []
    assert doubts(replace(seen, settings=CLIENT)) != []


def test_values_that_are_clipped_alike_are_no_signs_of_adam() -> None:
    clipping = TrainingParams.model_validate({"clipping": {"kind": "value", "limit": 1e-6}})
    seen = observe_small(images=1, trained=replace(CLIENT, training=clipping))
    assert doubts(seen) == []
    assert any("not by the believed SGD" in note for note in doubts(replace(seen, settings=CLIENT)))


@pytest.fixture(scope="module")
def judged() -> dict[str, list[list[str]]]:
    """Notes on one image with its label granted, by belief, over two models before and after training."""
    said: dict[str, list[list[str]]] = {}
    for seed in (200, 201):
        for column, belief, observation in beliefs.cases(seed, ("untrained", "trained")):
            if column.endswith("1, granted") and belief in (*RIGHT, *WRONG):
                said.setdefault(belief, []).append(doubts(observation))
    return said


def doubts(observation: Observation) -> list[str]:
    return [note for note in rehearse(observation) if not note.startswith("Not checked")]


RIGHT = (
    "right: SGD",
    "right: SGD, two epochs",
    "right: momentum, two epochs",
    "right: Adam",
    "right: Adam, two epochs",
)
WRONG = {
    "full state for a difference": "subtract the global model",
    "flipped sign": "sign",
    "learning rate × 0.5": "would fit",
    "learning rate × 2": "would fit",
    "learning rate × 10": "would fit",
    "one step for two": "the number of local steps",
    "SGD for Adam": "as by Adam or a sign",
    "Adam for SGD": "as by SGD",
}


@pytest.mark.parametrize("belief", RIGHT)
def test_a_right_belief_is_not_doubted(judged: dict[str, list[list[str]]], belief: str) -> None:
    assert judged[belief] == [[]] * 4


def test_a_tiny_update_of_a_trained_network_is_not_doubted() -> None:
    """Its predictions may be surer of the client's images than of any plausible ones, and its gradients as small."""
    settled = [case for case in beliefs.cases(201, ("settled",)) if case[1] in RIGHT]
    for column, belief, observation in settled:
        assert doubts(observation) == [], (column, belief)
    norms = [float(sum(value.norm() for value in seen.update.weights.values())) for _, _, seen in settled]
    assert min(norms) < 1e-2 * max(norms)


@pytest.mark.parametrize(("belief", "said"), WRONG.items(), ids=WRONG)
def test_a_wrong_belief_is_noticed(judged: dict[str, list[list[str]]], belief: str, said: str) -> None:
    assert len(judged[belief]) == 4
    for notes in judged[belief]:
        assert said in " ".join(notes)


def test_the_learning_rate_that_would_fit_is_the_clients(judged: dict[str, list[list[str]]]) -> None:
    """Of one image in one step it is worked out exactly: half the rate was believed, so the factor is 2."""
    for notes in judged["learning rate × 0.5"]:
        (note,) = [note for note in notes if "would fit" in note]
        assert float(note.split("moved ")[1].split(" times")[0]) == pytest.approx(2, rel=0.02)


def test_a_defence_that_the_attacker_knows_is_not_doubted() -> None:
    seen = observe_small(images=1)
    steps = DefenseSteps.model_validate([{"kind": "gaussian", "sigma0": 5.0}])
    defended = partial(changed, seen, update=with_noise(seen.update))
    assert rehearse(defended()) != []
    assert rehearse(defended(defense=steps)) == []


def with_noise(update: ClientUpdate) -> ClientUpdate:
    generator = torch.Generator().manual_seed(0)
    parts = [
        {name: value + torch.randn(value.shape, generator=generator) for name, value in part.items()}
        for part in (update.weights, update.statistics)
    ]
    return ClientUpdate(*parts, update.steps)
