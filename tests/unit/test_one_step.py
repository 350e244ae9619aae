"""The equation that one step of SGD obeys through batch normalisation, and what the rehearsal makes of it."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leakpipe.attacks.belief import SIGN_UNCHECKED, STEPS_UNCHECKED, examine_belief
from leakpipe.attacks.observation import Observation
from leakpipe.attacks.one_step import Normalized, equation_gap, examine_steps, normalized_layers
from leakpipe.attacks.plausible import simulate_plausible
from leakpipe.client.local_update import LocalSettings
from leakpipe.client.update import ClientUpdate
from leakpipe.models.state import ModelState
from leakpipe.params.training import TrainingParams
from tests.unit.attacking import observe, random_images, small_model

DOUBLE = torch.float64
ONE_STEP = {
    "plain SGD": {},
    "momentum and decay": {"optimizer": {"kind": "sgd", "momentum": 0.9, "weight_decay": 0.1}},
    "clipping by norm": {"clipping": {"kind": "norm", "limit": 0.01}},
    "FedProx and label smoothing": {"proximal_weight": 0.5, "loss": {"label_smoothing": 0.1}},
}


def seen_of(
    state: ModelState, *, epochs: int = 1, training: dict[str, Any] | None = None, images: int = 4
) -> Observation:
    trained = LocalSettings(learning_rate=0.01, training=TrainingParams.model_validate(training or {}))
    dtype = next(iter(state.weights.values())).dtype
    labels = [k % 3 for k in range(images)]
    return observe(state, random_images(images, dtype=dtype), labels, epochs=epochs, trained=trained)


def believing(seen: Observation, *, epochs: int) -> Observation:
    update = replace(seen.update, steps=epochs)
    return replace(seen, update=update, client=replace(seen.client, epochs=epochs))


@pytest.mark.parametrize("training", ONE_STEP.values(), ids=ONE_STEP)
def test_one_step_obeys_the_equation_and_two_do_not(training: dict[str, Any]) -> None:
    """Exactly, in double precision; with a weight of the normalisation that is not 1."""
    state = small_model(dtype=DOUBLE)
    state = state.replacing({name: 1.5 * value for name, value in state.weights.items()})
    one, two = (seen_of(state, epochs=epochs, training=training) for epochs in (1, 2))
    layers = normalized_layers(state, random_images(4, dtype=DOUBLE))
    assert layers == [Normalized("features.0", "features.1", 64), Normalized("features.3", "features.4", 16)]
    assert equation_gap(one, one.update, layers)[0] < 1e-8
    assert equation_gap(two, two.update, layers)[0] > 0.1


@pytest.mark.parametrize(
    ("believed", "taken", "said"), [(2, 1, "of a single local step, not of the believed 2"), (2, 2, "")]
)
def test_two_steps_believed_of_a_batch_are_told_from_one(believed: int, taken: int, said: str) -> None:
    examined = examine_belief(believing(seen_of(small_model(), epochs=taken), epochs=believed))
    assert [said in doubt for doubt in examined.doubts] == [True] * bool(said)
    assert not any("local steps, or one" in note for note in examined.unchecked)


def test_a_wrong_momentum_of_batch_normalisation_is_noticed() -> None:
    seen = seen_of(small_model())
    wrong = replace(seen, settings=replace(seen.settings, batch_norm_momentum=0.13))
    assert "No single step of SGD" in " ".join(examine_belief(wrong).doubts)
    right = examine_belief(seen)
    assert not right.doubts
    assert not any(note.startswith((STEPS_UNCHECKED, SIGN_UNCHECKED)) for note in right.unchecked)


@pytest.mark.parametrize("kind", ["adam", "without batch normalisation", "rounded"])
def test_a_number_of_steps_that_cannot_be_checked_is_said(kind: str) -> None:
    """Neither where the equation does not hold, nor where rounding of the weights is larger than the update."""
    state, training = small_model(), {}
    if kind == "adam":
        training = {"optimizer": {"kind": "adam"}}
    if kind == "without batch normalisation":
        state = ModelState.of(nn.Sequential(nn.Conv2d(1, 3, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(108, 3)))
    seen = seen_of(state, epochs=2, training=training)
    if kind == "rounded":
        tiny = {name: _rounded(state.weights[name], 1e-5 * value) for name, value in seen.update.weights.items()}
        seen = replace(seen, update=ClientUpdate(tiny, seen.update.statistics, 2))
    examined = examine_belief(seen)
    assert examined.doubts or any("2 local steps, or one" in note for note in examined.unchecked)
    assert not any("single local step" in doubt for doubt in examined.doubts)


def _rounded(weight: Tensor, change: Tensor) -> Tensor:
    return (weight + change) - weight


def test_a_layer_that_something_else_reads_is_left_out() -> None:
    """Its output is not normalised alone, so the equation does not hold for it, and says nothing."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.norm, self.head = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(144, 3)

        def forward(self, images: Tensor) -> Tensor:
            values = self.stem(images)
            return self.head((values + torch.relu(self.norm(values))).flatten(1))  # type: ignore[no-any-return]

    torch.manual_seed(0)
    examined = examine_belief(seen_of(ModelState.of(Residual())))
    assert not examined.doubts
    assert examine_belief(seen_of(ModelState.of(Residual()), epochs=2)).unchecked


@pytest.mark.parametrize("flipped", [False, True])
def test_rounding_of_the_update_is_recognised_and_what_it_buries_is_said(flipped: bool) -> None:
    """An update of the same size that is exact is read by the equation; its rounded difference is not."""
    state = small_model()
    seen = seen_of(state)
    sign = -1 if flipped else 1
    tiny = {name: 1e-5 * value for name, value in seen.update.weights.items()}
    exact = {name: sign * value for name, value in tiny.items()}
    rounded = {name: sign * _rounded(state.weights[name], value) for name, value in tiny.items()}
    told = [
        examine_steps(replace(seen, update=replace(seen.update, weights=weights)), simulate_plausible(seen))
        for weights in (exact, rounded)
    ]
    assert told[0] == ([], True)  # the equation does not see the sign: both of its sides turn with the weights
    assert told[1] == ([], False)


def test_a_sign_that_nothing_tells_is_said() -> None:
    """Without batch normalisation, and without labels: the head's direction is not known."""
    network = ModelState.of(nn.Sequential(nn.Conv2d(1, 3, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(108, 3)))
    seen = seen_of(network)
    for granted, said in ((seen.client.labels, False), (None, True)):
        examined = examine_belief(replace(seen, client=replace(seen.client, labels=granted)))
        assert not examined.doubts
        assert any("the update's sign" in note for note in examined.unchecked) == said
