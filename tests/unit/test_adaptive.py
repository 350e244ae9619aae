"""An attacker who is told the defence: the truth lies within what it believes, and it explains the update."""

import math
from typing import Any

import pytest
import torch

from leakpipe.attacks.adaptive import adapt, noise_deviation
from leakpipe.attacks.batch_statistics import find_usable_channels
from leakpipe.attacks.observation import Observation
from leakpipe.attacks.optimise import invert
from leakpipe.attacks.terms import Terms
from leakpipe.defenses.compose import apply_defenses
from leakpipe.federation.local import ClientUpdate
from leakpipe.models.batchnorm import BatchStatistics
from leakpipe.params_attacks import AttackSettings
from leakpipe.params_defenses import DefenseSteps
from tests.unit.attacking import observe, random_images, small_model

IMAGES = random_images(1, dtype=torch.float32)
LABELS = [1]
SETTINGS = AttackSettings(batch_norm_weight=1.0, layer_weighting=0.5)

COMPRESSING: dict[str, list[dict[str, Any]]] = {
    "top-k": [{"kind": "top-k", "share": 0.1}],
    "quantize": [{"kind": "quantize", "bits": 2}],
    "sign": [{"kind": "sign"}],
    "partial-sharing": [{"kind": "partial-sharing", "percentile": 80, "clip": 0.002}],
    "excluding": [{"kind": "partial-sharing", "percentile": 80, "clip": 9, "exclude": ["head.*"]}],
    "top-k, then quantised": [{"kind": "top-k", "share": 0.3}, {"kind": "quantize", "bits": 4}],
}
COMPRESSIONS = pytest.mark.parametrize("steps", COMPRESSING.values(), ids=COMPRESSING)


def steps_of(*steps: dict[str, Any]) -> DefenseSteps:
    return DefenseSteps.model_validate(steps)


def defended(trained: ClientUpdate, defense: DefenseSteps, *, seed: int = 0) -> ClientUpdate:
    return apply_defenses(trained, defense, generator=torch.Generator().manual_seed(seed)).update


def observations(defense: DefenseSteps) -> tuple[Observation, Observation]:
    """What a naive and an adaptive attacker see of one client."""
    trained = observe(small_model(), IMAGES, LABELS).update
    shared = defended(trained, defense)
    naive, adaptive = (observe(small_model(), IMAGES, LABELS, update=shared, defense=d) for d in (None, defense))
    return naive, adaptive


@COMPRESSIONS
@pytest.mark.parametrize("seed", range(3))
def test_what_was_trained_lies_within_the_bounds(steps: list[dict[str, Any]], seed: int) -> None:
    trained = observe(small_model(seed=seed), IMAGES, LABELS).update
    told = adapt(defended(trained, steps_of(*steps), seed=seed), steps_of(*steps))
    assert told.weight_bounds
    for name, (lower, upper) in told.weight_bounds.items():
        slack = 1e-6 * trained.weights[name].abs().max()
        assert bool((lower <= trained.weights[name] + slack).all()), name
        assert bool((upper >= trained.weights[name] - slack).all()), name
    for name, (lower, upper) in told.statistic_bounds.items():
        assert bool((lower <= trained.statistics[name] + 1e-6).all()), name
        assert bool((upper >= trained.statistics[name] - 1e-6).all()), name


@COMPRESSIONS
def test_the_true_image_explains_the_update_only_for_who_is_told(steps: list[dict[str, Any]]) -> None:
    naive, adaptive = (
        Terms(seen, SETTINGS, seed=0).evaluate(IMAGES, torch.tensor(LABELS)).terms
        for seen in observations(steps_of(*steps))
    )
    for term in ("update_distance", "batch_statistics"):
        assert adaptive[term] < 1e-6
        assert naive[term] > 1e-3


@pytest.mark.parametrize("steps", [[], [{"kind": "clip", "clip_norm": 0.01}], [{"kind": "gaussian", "sigma0": 0}]])
def test_nothing_to_undo_leaves_the_update_as_it_is(steps: list[dict[str, Any]]) -> None:
    update = observe(small_model(), IMAGES, LABELS).update
    told = adapt(update, steps_of(*steps))
    assert (told.weight_bounds, told.statistic_bounds, told.statistic_noise) == ({}, {}, 0)
    torch.testing.assert_close(told.weights, dict(update.weights), rtol=0, atol=0)


def sparse_update(size: int = 100_000) -> ClientUpdate:
    """One tensor with a strong signal, one with almost none, as updates have them."""
    drawn = torch.Generator().manual_seed(0)
    strong = torch.randn(size // 10, generator=drawn)
    weak = torch.randn(size, generator=drawn) * 1e-3
    return ClientUpdate({"strong": strong, "weak": weak}, {}, steps=1)


@pytest.mark.parametrize(
    ("step", "relative"),
    [
        ({"kind": "gaussian", "sigma0": 2}, 0.05),
        ({"kind": "laplace", "scale0": 2}, 0.05),
        ({"kind": "laplace", "scale": 0.7}, 1e-9),
        ({"kind": "dp-gaussian", "clip_norm": 50.0, "noise_multiplier": 0.02}, 1e-9),
    ],
)
def test_noise_is_measured_and_shrunk(step: dict[str, Any], relative: float) -> None:
    defense = steps_of(step)
    trained = sparse_update()
    clip = steps_of({"kind": "clip", "clip_norm": step["clip_norm"]}) if step["kind"] == "dp-gaussian" else steps_of()
    before = defended(trained, clip)
    shared = defended(trained, defense)
    noise = torch.cat([(shared.weights[name] - value).double() for name, value in before.weights.items()])
    found = noise_deviation([*shared.weights.values()], defense.root[0])  # type: ignore[arg-type]
    assert found == pytest.approx(noise.std().item(), rel=relative + 0.01)
    told = adapt(shared, defense)
    for name, value in before.weights.items():
        kept = told.weights.get(name, torch.zeros_like(value))
        assert (kept - value).norm() < 0.9 * (shared.weights[name] - value).norm()


def test_a_signal_that_drowned_is_not_compared_but_for_one_that_drowned_whole() -> None:
    defense = steps_of({"kind": "dp-gaussian", "clip_norm": 1e6, "noise_multiplier": 1e-7})
    assert set(adapt(defended(sparse_update(), defense), defense).weights) <= {"strong", "weak"}
    drowned = steps_of({"kind": "dp-gaussian", "clip_norm": 1e-3, "noise_multiplier": 100})
    silent = ClientUpdate({"w": torch.zeros(2)}, {}, 1)
    assert set(adapt(silent, drowned).weights) == {"w"}


def test_channels_are_used_up_to_noise_of_their_own_size() -> None:
    recovered = {"bn": BatchStatistics(torch.zeros(5), torch.tensor([4.0, 2.0, 1.99, 0.5, -1.0]))}
    assert find_usable_channels(recovered, 0.2, momentum=0.1, steps=1)["bn"].tolist() == [
        True,
        False,
        False,
        False,
        False,
    ]
    assert find_usable_channels(recovered, 0.05, momentum=0.1, steps=1)["bn"].tolist() == [True] * 4 + [False]


def test_drowned_statistics_are_left_out_and_a_note_says_so() -> None:
    _, adaptive = observations(steps_of({"kind": "gaussian", "sigma0": 30}))
    assert any("drowned in the defence's noise" in note for note in Terms(adaptive, SETTINGS, seed=0).notes)


@pytest.mark.parametrize("kind", ["top-k", "sign"])
def test_adaptive_beats_naive(kind: str) -> None:
    settings = SETTINGS.model_copy(update={"iterations": 150, "step_size": 0.05})
    naive, adaptive = (
        invert(seen, settings, seed=0).images.sub(IMAGES).square().mean().item()
        for seen in observations(steps_of(*COMPRESSING[kind]))
    )
    assert adaptive < 0.8 * naive
    assert math.isfinite(naive)


def test_an_attack_goes_on_without_statistics_that_are_withheld() -> None:
    naive, _ = observations(steps_of({"kind": "freeze-bn-statistics"}))
    result = invert(naive, SETTINGS.model_copy(update={"iterations": 2}), seed=0)
    assert "The update holds no running statistics: the attack went on without them." in result.notes
