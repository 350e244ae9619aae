"""FedBN: what clients keep, what they share, and what attacks make of the rest."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from leakpipe.attacks.observation import KnownClient, Observation, usable_settings
from leakpipe.attacks.optimise import invert
from leakpipe.client.batches import make_batches, schedule_batches
from leakpipe.client.local_update import local_update
from leakpipe.data.partition import Split
from leakpipe.errors import LeakpipeError
from leakpipe.federation.files import StoredUpdate, load_update, save_model, save_update
from leakpipe.federation.simulate import FederationResult, measure_accuracy, simulate_federation
from leakpipe.models.state import ModelState
from leakpipe.params.attack_settings import AttackSettings
from leakpipe.params.defenses import DefenseSteps
from leakpipe.params.federation import FederationParams
from leakpipe.params.models import ModelParams
from leakpipe.randomness import derive_seed
from tests.conftest import SETTINGS, small_batches, small_state

CLIENTS = {"one": {"images": 4, "batch_size": 4}, "other": {"images": 6, "batch_size": 3}}
SPLIT = Split(clients={"one": (0, 1, 2, 3), "other": (4, 5, 6, 7, 8, 9)}, validation=(), test=(10, 11, 12), public=())
BATCH_NORM = {f"features.{layer}.{kind}" for layer in (1, 4) for kind in ("weight", "bias")}


@cache
def federate(sharing: str) -> tuple[ModelState, FederationResult]:
    """Two rounds; the result is shared between tests, which must not change it."""
    (data,) = small_batches(13, dtype=torch.float32)
    params = FederationParams(
        rounds=2, captured_rounds=(1, 2), learning_rate=0.05, local_epochs=1, batch_norm_momentum=0.1,
        clients=CLIENTS, batch_norm_sharing=sharing,
    )  # fmt: skip
    initial, none = small_state(dtype=torch.float32), DefenseSteps(())
    return initial, simulate_federation(
        initial, data.images, data.labels, SPLIT, params, defense=none, attacked=list(CLIENTS), seed=3
    )


def test_rounds_are_those_of_the_paper_by_hand() -> None:
    """Algorithm 1 of Li 2021: the server averages all layers but batch normalisation, which clients keep."""
    state, result = federate("local")
    (data,) = small_batches(13, dtype=torch.float32)
    models = {name: {**state.weights, **state.statistics} for name in CLIENTS}
    captured = {(found.round, found.client): found for found in result.captured}
    for round_number in (1, 2):
        for name, client in CLIENTS.items():
            order = torch.Generator().manual_seed(derive_seed("batches", 3, round_number, name))
            schedule = schedule_batches(client["images"], client["batch_size"], 1, order)
            held, found = list(SPLIT.clients[name]), captured[round_number, name]
            batches = make_batches(data.images[held], data.labels[held], schedule)
            update = local_update(state.replacing(models[name]), batches, SETTINGS)
            for key, value in found.update.weights.items():
                torch.testing.assert_close(value, update.weights[key], rtol=1e-4, atol=1e-7)
            for key, value in {**found.before.weights, **found.before.statistics}.items():
                kept = key in BATCH_NORM or key in state.statistics
                initial = {**state.weights, **state.statistics}[key]
                torch.testing.assert_close(value, initial if kept else models[name][key], rtol=1e-5, atol=1e-7)
            changes = {**update.weights, **update.statistics}
            models[name] = {key: value + changes[key] for key, value in models[name].items()}
        for key in state.weights.keys() - BATCH_NORM:
            mean = 0.4 * models["one"][key] + 0.6 * models["other"][key]
            models = {name: {**model, key: mean} for name, model in models.items()}
    accuracies = [
        measure_accuracy(state.replacing(model), data.images, data.labels, SPLIT.test) for model in models.values()
    ]
    assert result.accuracy[-1].test == pytest.approx(sum(accuracies) / 2)
    kept = [models[name]["features.1.running_mean"] for name in CLIENTS]
    assert not torch.allclose(*kept)


def test_updates_hold_no_batch_normalisation() -> None:
    state, result = federate("local")
    for captured in result.captured:
        assert captured.update.weights.keys() == state.weights.keys() - BATCH_NORM
        assert captured.update.statistics == {}
        assert captured.exact_statistics == {}
    _, shared = federate("shared")
    assert shared.captured[0].update.weights.keys() == state.weights.keys()
    for name, value in result.captured[0].update.weights.items():
        assert torch.equal(value, shared.captured[0].update.weights[name]), "in the first round all train alike"


def observe(tmp_path: Path) -> Observation:
    """One client's update of the second round, from disk."""
    _, result = federate("local")
    captured = result.captured[2]
    model, update = tmp_path / "global.safetensors", tmp_path / "update.safetensors"
    params = ModelParams(name="convnet-bn", widths=(4, 6), strides=(1, 2))
    save_model(model, captured.before, params=params, classes=2, image_size=8)
    stored = StoredUpdate(captured.update, {"client": "one"}, captured.schedule, captured.labels, SETTINGS)
    save_update(update, stored)
    read = load_update(update, captured.before).update
    assert read.weights.keys() == captured.update.weights.keys()
    return Observation(
        before=captured.before,
        update=read,
        settings=SETTINGS,
        image_shape=(1, 8, 8),
        client=KnownClient(
            images=4,
            batch_size=4,
            epochs=1,
            labels=torch.tensor(captured.labels),
            prior=torch.full((4, 1, 8, 8), 0.5),
        ),
    )


@pytest.mark.parametrize("settings", [{}, {"batch_norm": "frozen", "batch_norm_weight": 1.0}, {"layer_weighting": 1.0}])
def test_attacks_work_with_what_there_is(tmp_path: Path, settings: dict[str, object]) -> None:
    result = invert(observe(tmp_path), AttackSettings(iterations=20, step_size=0.02, **settings), seed=0)
    curve = result.curves["update_distance"]
    assert result.stopped == "finished"
    assert min(curve) < curve[0]


def test_attacks_that_match_statistics_say_that_they_cannot(tmp_path: Path) -> None:
    matching = AttackSettings(batch_norm="update", batch_norm_weight=1.0)
    used, notes = usable_settings(observe(tmp_path), matching)
    assert used.batch_norm_weight == 0
    assert notes == ["The update holds no running statistics: the attack went on without them."]
    with pytest.raises(LeakpipeError, match="needs running statistics in the update, but they are withheld"):
        usable_settings(observe(tmp_path), matching.model_copy(update={"objective_weight": 0.0}))


def test_an_update_with_some_of_it_is_refused(tmp_path: Path) -> None:
    _, result = federate("shared")
    captured = result.captured[0]
    update = tmp_path / "update.safetensors"
    some = {name: value for name, value in captured.update.weights.items() if name != "features.1.bias"}
    partial = replace(captured.update, weights=some)
    save_update(update, StoredUpdate(partial, {}, captured.schedule, captured.labels, SETTINGS))
    with pytest.raises(LeakpipeError, match=r"tensor 'weights/features.1.bias' is missing; the model has it"):
        load_update(update, captured.before)
