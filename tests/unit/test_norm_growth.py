"""Normalised weights that become longer tell the state before a round from the one after it."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from leakpipe.attacks.belief import examine_belief
from leakpipe.attacks.norm_growth import norm_growth
from leakpipe.attacks.observation import Observation
from leakpipe.attacks.one_step import normalized_layers
from leakpipe.client.batches import assume_schedule, make_batches
from leakpipe.client.local_update import LocalSettings, local_update
from leakpipe.client.update import ClientUpdate, combine_updates
from leakpipe.models.state import ModelState, build_module, initial_state
from leakpipe.params.models import ModelParams
from leakpipe.params.training import TrainingParams
from tests.benchmarks.beliefs import move, swap_files
from tests.unit.attacking import observe, random_images

DOUBLE = torch.float64
TRAININGS: dict[str, dict[str, Any]] = {
    "plain SGD": {},
    "momentum": {"optimizer": {"kind": "sgd", "momentum": 0.9}},
    "Adam": {"optimizer": {"kind": "adam"}},
    "AdamW": {"optimizer": {"kind": "adamw"}},
}


def network(dtype: torch.dtype = torch.float32) -> ModelState:
    params = ModelParams(name="convnet-bn", widths=(16, 32), strides=(2, 2))
    return initial_state(build_module(params, classes=3, image_size=16), seed=0, dtype=dtype)


def seen_of(state: ModelState, *, epochs: int, training: dict[str, Any] | None = None) -> Observation:
    trained = LocalSettings(learning_rate=0.01, training=TrainingParams.model_validate(training or {}))
    dtype = next(iter(state.weights.values())).dtype
    return observe(state, random_images(2, size=16, dtype=dtype), [0, 2], epochs=epochs, trained=trained)


@pytest.mark.parametrize("epochs", [1, 3])
def test_growth_is_what_the_single_steps_say(epochs: int) -> None:
    """ρ = (1 − Σ‖ΔW_k‖²/‖ΔW‖²)/2 by training step by step, up to ε of the normalisation; swapped files give 1 − ρ."""
    state = network(DOUBLE)
    seen = seen_of(state, epochs=epochs)
    layers = normalized_layers(state, random_images(2, size=16, dtype=DOUBLE))
    names = [f"{each.layer}.weight" for each in layers]
    (batch,) = make_batches(random_images(2, size=16, dtype=DOUBLE), torch.tensor([0, 2]), assume_schedule(2, 2, 1))
    squares = 0.0
    for _ in range(epochs):
        step = local_update(state, [batch], seen.settings)
        squares += sum(float(step.weights[name].square().sum()) for name in names)
        state = move(state, step)
    whole = sum(float(seen.update.weights[name].square().sum()) for name in names)
    growth = norm_growth(seen, seen.update, layers)
    assert growth is not None
    assert growth[0] == pytest.approx((1 - squares / whole) / 2, abs=5e-3)
    other = swap_files(seen)
    reverse = norm_growth(other, other.update, layers)
    assert reverse is not None
    assert reverse[0] == pytest.approx(1 - growth[0], abs=1e-9)


@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("training", TRAININGS.values(), ids=TRAININGS)
def test_swapped_files_are_noticed(training: dict[str, Any], epochs: int) -> None:
    seen = seen_of(network(), epochs=epochs, training=training)
    assert not examine_belief(seen).doubts
    assert "are swapped" in " ".join(examine_belief(swap_files(seen)).doubts)


def test_weight_decay_shortens_weights_and_is_no_doubt_where_it_is_declared() -> None:
    decay: dict[str, Any] = {"optimizer": {"kind": "sgd", "weight_decay": 0.5}}
    seen = seen_of(network(), epochs=2, training=decay)
    assert not examine_belief(seen).doubts
    believed = replace(seen, settings=replace(seen.settings, training=TrainingParams()))
    assert "more weight decay" in " ".join(examine_belief(believed).doubts)


@pytest.mark.parametrize("epochs", [1, 2])
def test_coarse_numbers_are_no_swapped_files(epochs: int) -> None:
    """Both states in bfloat16, whose rounding is longer than the update: its scatter over channels says so."""
    state = network()
    state = state.replacing({name: value.bfloat16().float() for name, value in state.weights.items()})
    seen = seen_of(state, epochs=epochs)

    def round_state(change: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return (weight + change).bfloat16().float() - weight

    coarse = combine_updates(round_state, seen.update, ClientUpdate(state.weights, state.statistics, 1))
    doubts = examine_belief(replace(seen, update=replace(coarse, steps=epochs))).doubts
    assert "swapped" not in " ".join(doubts)
