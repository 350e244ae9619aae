"""One step of Adam shows its step size and its decoupled weight decay."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from leakpipe.attacks.adam_step import read_adam_step
from leakpipe.attacks.belief import examine_belief
from leakpipe.attacks.observation import Observation
from leakpipe.client.local_update import LocalSettings
from leakpipe.client.update import ClientUpdate, combine_updates
from leakpipe.params.training import TrainingParams
from tests.unit.attacking import observe, random_images
from tests.unit.test_norm_growth import network

ADAM: dict[str, Any] = {"optimizer": {"kind": "adam"}}


def trained_by(optimizer: dict[str, Any], *, learning_rate: float = 1e-3, epochs: int = 1) -> Observation:
    settings = LocalSettings(learning_rate=learning_rate, training=TrainingParams.model_validate(optimizer))
    return observe(network(), random_images(2, size=16, dtype=torch.float32), [0, 2], epochs=epochs, trained=settings)


def believing(seen: Observation, optimizer: dict[str, Any], *, learning_rate: float = 1e-3) -> Observation:
    training = TrainingParams.model_validate(optimizer)
    return replace(seen, settings=replace(seen.settings, learning_rate=learning_rate, training=training))


@pytest.mark.parametrize(("kind", "decay"), [("adam", 0.0), ("adam", 0.1), ("adamw", 0.01), ("adamw", 0.2)])
def test_step_size_and_decoupled_decay_are_read(kind: str, decay: float) -> None:
    """Adam's own decay is part of the gradient, so of its sign alone."""
    seen = trained_by({"optimizer": {"kind": kind, "weight_decay": decay}}, learning_rate=2e-3)
    read = read_adam_step(seen, 0.0)
    assert read is not None
    assert read.rate == pytest.approx(2e-3, rel=1e-2)
    assert read.decay == pytest.approx(decay if kind == "adamw" else 0.0, abs=2e-3, rel=0.05)
    assert not examine_belief(seen).doubts


@pytest.mark.parametrize("rate", [5e-4, 2e-3])
@pytest.mark.parametrize("epochs", [1, 2])
def test_half_and_twice_the_step_size_are_doubted(rate: float, epochs: int) -> None:
    wrong = believing(trained_by(ADAM, epochs=epochs), ADAM, learning_rate=rate)
    said = "Weights moved by 0.001," if epochs == 1 else "times as large as the believed training"
    assert said in " ".join(examine_belief(wrong).doubts)


def test_adamw_for_adam_and_adam_for_adamw_are_doubted() -> None:
    adamw: dict[str, Any] = {"optimizer": {"kind": "adamw", "weight_decay": 0.05}}
    assert "as by AdamW with that weight_decay" in " ".join(examine_belief(believing(trained_by(adamw), ADAM)).doubts)
    assert "not by the believed adamw with 0.05" in " ".join(examine_belief(believing(trained_by(ADAM), adamw)).doubts)


def test_coarse_weights_say_nothing_wrong() -> None:
    """States in bfloat16: γ, which is 1, cannot move by as little as a step, and small weights can."""
    seen = trained_by(ADAM)

    def round_state(change: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return (weight + change).bfloat16().float() - weight.bfloat16().float()

    before = ClientUpdate(seen.before.weights, seen.before.statistics, 1)
    coarse = replace(seen, update=replace(combine_updates(round_state, seen.update, before), steps=1))
    assert not [doubt for doubt in examine_belief(coarse).doubts if "Weights" in doubt]
