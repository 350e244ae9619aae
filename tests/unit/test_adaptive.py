"""An attacker who knows the defence: the truth lies within the bounds, and explains the adapted update."""

from typing import Any

import pytest
import torch

from leakpipe.attacks.adaptive import adapt, noise_deviation
from leakpipe.attacks.objective import Objective
from leakpipe.attacks.observation import Observation
from leakpipe.attacks.optimise import invert
from leakpipe.client.update import ClientUpdate
from leakpipe.defenses.compose import apply_defenses
from leakpipe.models.state import build_module, initial_state
from leakpipe.params.attack_settings import AttackSettings
from leakpipe.params.defenses import DefenseSteps
from leakpipe.params.models import ModelParams
from tests.unit.attacking import observe, random_images, small_model

IMAGES = random_images(1, dtype=torch.float32)
LABELS = [1]
MODEL = ModelParams(name="convnet-bn", widths=(12, 12), strides=(1, 2))
SETTINGS = AttackSettings(batch_norm_weight=1.0, layer_weighting=0.5)

CUTTING: dict[str, list[dict[str, Any]]] = {
    "clipping": [{"kind": "partial-sharing", "percentile": 0, "clip": 0.002}],
    "percentile": [{"kind": "percentile", "percentile": 0, "gamma": 0.002}],
    "clipping twice": [
        {"kind": "partial-sharing", "percentile": 0, "clip": 0.02},
        {"kind": "partial-sharing", "percentile": 0, "clip": 0.002},
    ],
    "excluding": [{"kind": "partial-sharing", "percentile": 0, "clip": 9, "exclude": ["head.*", "*running_var"]}],
}
CUTS = pytest.mark.parametrize("steps", CUTTING.values(), ids=CUTTING)


def steps_of(*steps: dict[str, Any]) -> DefenseSteps:
    return DefenseSteps.model_validate(steps)


def defended(trained: ClientUpdate, defense: DefenseSteps, *, seed: int = 0) -> ClientUpdate:
    return apply_defenses(trained, defense, generator=torch.Generator().manual_seed(seed)).update


def observations(defense: DefenseSteps) -> tuple[Observation, Observation]:
    """Returns what a naive and an adaptive attacker see of one client."""
    trained = observe(small_model(), IMAGES, LABELS).update
    shared = defended(trained, defense)
    naive, adaptive = (observe(small_model(), IMAGES, LABELS, update=shared, defense=d) for d in (None, defense))
    return naive, adaptive


@CUTS
@pytest.mark.parametrize("seed", range(3))
def test_what_was_trained_lies_within_the_bounds(steps: list[dict[str, Any]], seed: int) -> None:
    trained = observe(small_model(seed=seed), IMAGES, LABELS).update
    adapted = adapt(defended(trained, steps_of(*steps), seed=seed), steps_of(*steps))
    assert adapted.weight_bounds or adapted.statistic_bounds
    for name, (lower, upper) in adapted.weight_bounds.items():
        slack = 1e-6 * trained.weights[name].abs().max()
        assert bool((lower <= trained.weights[name] + slack).all()), name
        assert bool((upper >= trained.weights[name] - slack).all()), name
    for name, (lower, upper) in adapted.statistic_bounds.items():
        assert bool((lower <= trained.statistics[name] + 1e-6).all()), name
        assert bool((upper >= trained.statistics[name] - 1e-6).all()), name


@CUTS
def test_the_true_image_explains_the_update_better_once_it_is_adapted(steps: list[dict[str, Any]]) -> None:
    naive, adaptive = (
        Objective(seen, SETTINGS, seed=0).evaluate(IMAGES, torch.tensor(LABELS)).terms
        for seen in observations(steps_of(*steps))
    )
    for term in ("update_distance", "batch_statistics"):
        assert adaptive[term] < 0.6 * naive[term]


@pytest.mark.parametrize("steps", [[], [{"kind": "clip", "clip_norm": 0.01}], [{"kind": "gaussian", "sigma0": 0}]])
def test_nothing_to_undo_leaves_the_update_as_it_is(steps: list[dict[str, Any]]) -> None:
    update = observe(small_model(), IMAGES, LABELS).update
    adapted = adapt(update, steps_of(*steps))
    assert (adapted.weight_bounds, adapted.statistic_bounds, adapted.statistic_noise) == ({}, {}, {})
    assert not adapted.equal_noise
    torch.testing.assert_close(adapted.weights, dict(update.weights), rtol=0, atol=0)


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
def test_noise_is_measured(step: dict[str, Any], relative: float) -> None:
    defense = steps_of(step)
    clip = steps_of({"kind": "clip", "clip_norm": step["clip_norm"]}) if step["kind"] == "dp-gaussian" else steps_of()
    before, shared = defended(sparse_update(), clip), defended(sparse_update(), defense)
    noise = torch.cat([(shared.weights[name] - value).double() for name, value in before.weights.items()])
    found = noise_deviation([*shared.weights.values()], defense.root[0])  # type: ignore[arg-type]
    assert found == pytest.approx(noise.std().item(), rel=relative + 0.01)
    assert adapt(shared, defense).equal_noise


def test_the_noise_of_the_sparse_vector_technique_is_known() -> None:
    defense = steps_of({"kind": "svt", "gamma": 1e-9, "noise_var": 1e-9})
    shared = defended(sparse_update(), defense)
    adapted = adapt(shared, defense)
    noise = torch.cat([value[value != 0] for value in shared.weights.values()])
    assert adapted.equal_noise
    assert noise.std().item() == pytest.approx(2**0.5 * 2, rel=0.05)  # 2γ / noise_var is the scale


def test_under_noise_all_values_count_alike() -> None:
    defense = steps_of({"kind": "gaussian", "sigma0": 1})
    naive, adaptive = (Objective(seen, SETTINGS, seed=0).problem.scales.values() for seen in observations(defense))
    assert set(adaptive) == {1.0}
    assert len(set(naive)) > 1


@pytest.mark.parametrize("step", [{"kind": "top-k", "share": 0.1}, {"kind": "quantize", "bits": 2}])
def test_what_was_left_out_or_rounded_is_read_as_it_was_sent(step: dict[str, Any]) -> None:
    """The adapted attack is the naive one: reading more into it got less."""
    naive, adaptive = (Objective(seen, SETTINGS, seed=0) for seen in observations(steps_of(step)))
    found = [objective.evaluate(IMAGES, torch.tensor(LABELS)).terms for objective in (naive, adaptive)]
    assert found[0] == found[1]


def test_signs_are_read_as_they_are_and_nothing_before_them_is_undone() -> None:
    for before in ([], [{"kind": "top-k", "share": 0.3}]):
        defense = steps_of(*before, {"kind": "sign"})
        shared = defended(observe(small_model(), IMAGES, LABELS).update, defense)
        adapted = adapt(shared, defense)
        assert (adapted.weight_bounds, adapted.statistic_bounds, adapted.statistic_noise) == ({}, {}, {})
        assert not adapted.equal_noise
        assert all(torch.equal(adapted.weights[name], value) for name, value in shared.weights.items())


def test_noise_is_handed_on_to_the_statistics_that_are_recovered() -> None:
    """Differences of running statistics are divided by the batches' weight, and so is their noise."""
    defense = steps_of({"kind": "dp-gaussian", "clip_norm": 1, "noise_multiplier": 0.3})
    naive, adaptive = (Objective(seen, SETTINGS, seed=0) for seen in observations(defense))
    assert not naive.statistics.noise
    assert set(adaptive.statistics.noise) == set(adaptive.statistics.target)
    for found in adaptive.statistics.noise.values():
        assert found == pytest.approx((0.3 / 0.1, 0.3 / 0.1))
    assert any("taken for as small as the noise" in note for note in adaptive.notes)


def test_adaptive_beats_naive_where_values_are_clipped() -> None:
    state = initial_state(build_module(MODEL, classes=3, image_size=8), seed=0)
    coarse = torch.rand(1, 1, 3, 3, generator=torch.Generator().manual_seed(3))
    image = torch.nn.functional.interpolate(coarse, size=8, mode="bilinear")
    defense = steps_of({"kind": "partial-sharing", "percentile": 80, "clip": 0.002})
    shared = defended(observe(state, image, LABELS).update, defense)
    settings = SETTINGS.model_copy(update={"iterations": 100, "step_size": 0.05, "total_variation_weight": 0.01})
    naive, adaptive = (
        invert(observe(state, image, LABELS, update=shared, defense=adapted), settings, seed=0).images
        for adapted in (None, defense)
    )
    assert (adaptive - image).square().mean() < 0.9 * (naive - image).square().mean()


def test_an_attack_goes_on_without_statistics_that_are_withheld() -> None:
    naive, _ = observations(steps_of({"kind": "freeze-bn-statistics"}))
    result = invert(naive, SETTINGS.model_copy(update={"iterations": 2}), seed=0)
    assert "The update holds no running statistics: the attack went on without them." in result.notes
