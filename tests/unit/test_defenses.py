"""Every defence against a naive computation or a closed form, and what each promises as a property."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from leakpipe.client.local_update import local_update
from leakpipe.client.update import ClientUpdate
from leakpipe.defenses.clipping import scale_to_norm
from leakpipe.defenses.compose import DEFENSES, apply_defenses
from leakpipe.defenses.steps import count_aggregated, training_step
from leakpipe.defenses.values import flatten_values, nonzero_percentile
from leakpipe.errors import LeakpipeError
from leakpipe.federation.files import StoredUpdate, load_update, save_update
from leakpipe.params.defenses import DefenseSteps
from tests.conftest import SETTINGS, small_batches, small_state


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def update(seed: int = 0, size: int = 500, scale: float = 1.0) -> ClientUpdate:
    """A tensor of which a fifth is zero, another one, and running statistics."""
    drawn = generator(seed)
    weights = torch.randn(size, generator=drawn) * scale
    weights[: size // 5] = 0
    other = torch.randn(4, size // 10, generator=drawn) * 3 * scale
    return ClientUpdate({"w": weights, "v": other}, {"s": torch.randn(size // 10, generator=drawn) * scale}, steps=3)


def defend(given: ClientUpdate, *steps: dict[str, Any], seed: int = 0) -> ClientUpdate:
    return apply_defenses(given, DefenseSteps.model_validate(steps), generator=generator(seed)).update


def arrays(given: ClientUpdate) -> dict[str, np.ndarray]:
    return {name: value.numpy().astype(np.float64) for name, value in {**given.weights, **given.statistics}.items()}


def assert_same(first: ClientUpdate, second: ClientUpdate) -> None:
    torch.testing.assert_close(dict(first.weights), dict(second.weights), rtol=0, atol=0)
    torch.testing.assert_close(dict(first.statistics), dict(second.statistics), rtol=0, atol=0)
    assert first.steps == second.steps


EXAMPLES: dict[str, dict[str, Any]] = {
    "gaussian": {"sigma0": 1},
    "laplace": {"scale0": 1},
    "dp-gaussian": {"clip_norm": 1, "noise_multiplier": 1},
    "clip": {"clip_norm": 1},
    "freeze-bn-statistics": {},
    "top-k": {"share": 0.1},
    "quantize": {"bits": 4},
    "sign": {},
    "partial-sharing": {"percentile": 90, "clip": 0.5, "exclude": ["v"]},
    "percentile": {},
    "svt": {},
    "exclude-vars": {"exclude": ["v"]},
    "flower-fixed-clipping": {"clipping_norm": 1, "noise_multiplier": 1},
    "flower-adaptive-clipping": {"noise_multiplier": 0},
}


@pytest.mark.parametrize("kind", DEFENSES)
def test_every_defence_is_pure_repeatable_and_leaves_the_counter_alone(kind: str) -> None:
    before, step = update(), {"kind": kind, **EXAMPLES[kind]}
    after = defend(before, step)
    assert_same(before, update())
    assert_same(after, defend(before, step))
    assert after.steps == before.steps
    assert after.weights["w"].dtype == torch.float32
    assert {name: value.shape for name, value in after.weights.items()} == {
        name: value.shape for name, value in before.weights.items() if name not in after.removed
    }


@pytest.mark.parametrize("percentile", [50.0, 95.0, 100.0])
def test_percentile_is_numpys_of_the_non_zero_values_of_the_whole_update(percentile: float) -> None:
    values = np.concatenate([value.ravel() for value in arrays(update()).values()])
    expected = np.percentile(np.abs(values[values != 0]), percentile)
    assert nonzero_percentile(update(), percentile) == pytest.approx(expected, rel=1e-12)


NOISES = [
    ({"kind": "gaussian", "sigma0": 5}, lambda p: 5 * p, "norm"),
    ({"kind": "laplace", "scale0": 2}, lambda p: 2 * 2**0.5 * p, "laplace"),
    ({"kind": "laplace", "scale": 0.3}, lambda _p: 0.3 * 2**0.5, "laplace"),
    ({"kind": "dp-gaussian", "clip_norm": 1e9, "noise_multiplier": 2e-9}, lambda _p: 2.0, "norm"),
]


@pytest.mark.parametrize(("step", "deviation", "shape"), NOISES)
def test_noise_has_the_formulas_deviation_and_shape_on_weights_and_statistics(
    step: dict[str, Any], deviation: Any, shape: str
) -> None:
    """10⁶ values: the sample deviation is within 1 % (its own error is below 0.2 %); a K–S test for the shape."""
    before = update(size=1_000_000)
    after = defend(before, step)
    expected = deviation(nonzero_percentile(before, 95))
    for part in ("weights", "statistics"):
        for name, value in getattr(before, part).items():
            noise = (getattr(after, part)[name] - value).double().flatten()
            assert noise.std().item() == pytest.approx(expected, rel=0.015 if len(noise) < 500_000 else 0.01)
            assert abs(noise.mean().item()) < 5 * expected / len(noise) ** 0.5
            scale = expected if shape == "norm" else expected / 2**0.5
            assert stats.kstest(noise[:20_000].numpy(), shape, args=(0, scale)).pvalue > 1e-3


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
@pytest.mark.parametrize("targets", ["weights", "statistics"])
def test_noise_keeps_to_its_targets(kind: str, targets: str) -> None:
    before = update()
    after = defend(before, {"kind": kind, **EXAMPLES[kind], "targets": targets})
    assert torch.equal(after.weights["w"], before.weights["w"]) == (targets == "statistics")
    assert torch.equal(after.statistics["s"], before.statistics["s"]) == (targets == "weights")


def test_noise_of_zero_and_of_an_all_zero_update_changes_nothing() -> None:
    assert_same(defend(update(), {"kind": "gaussian", "sigma0": 0}), update())
    silent = ClientUpdate({"w": torch.zeros(4)}, {}, steps=1)
    for kind in ("gaussian", "laplace", "quantize", "sign", "top-k", "clip"):
        assert not defend(silent, {"kind": kind, **EXAMPLES[kind]}).weights["w"].any()


BOUNDED = {
    "clip": ({"kind": "clip", "clip_norm": 0.7}, 2, 0.7),
    "dp-gaussian": ({"kind": "dp-gaussian", "clip_norm": 0.7, "noise_multiplier": 0}, 2, 0.7),
    "dp-gaussian without statistics": (
        {"kind": "dp-gaussian", "clip_norm": 0.7, "noise_multiplier": 0, "statistics": "withheld"}, 2, 0.7,
    ),
    "laplace": ({"kind": "laplace", "scale": 0, "clip_norm": 0.7}, 1, 0.7),
    "partial-sharing": ({"kind": "partial-sharing", "percentile": 50, "clip": 0.2}, np.inf, 0.6),
}  # fmt: skip


@pytest.mark.parametrize(("step", "order", "bound"), BOUNDED.values(), ids=BOUNDED)
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scale", [1e-4, 1e-2, 1.0, 1e6])
def test_no_client_moves_the_output_by_more_than_the_bound_before_noise(
    step: dict[str, Any], order: float, bound: float, seed: int, scale: float
) -> None:
    before = update(seed, scale=scale)
    after = defend(before, step)
    norm = np.linalg.norm(np.concatenate([value.ravel() for value in arrays(after).values()]), order)
    assert norm <= bound * (1 + 1e-6)
    if scale >= 1:
        assert norm == pytest.approx(bound, rel=1e-6)
    if scale < 1e-2 and "percentile" not in step and "statistics" not in step:
        assert_same(after, before)


def test_clipping_is_of_weights_and_statistics_as_one_vector_and_keeps_the_direction() -> None:
    before, after = flatten_values(update()).numpy(), flatten_values(scale_to_norm(update(), 0.7, order=2)).numpy()
    np.testing.assert_allclose(after, before * 0.7 / np.sqrt((before**2).sum()), rtol=1e-6)


def test_dp_noise_is_that_of_the_clip_and_withheld_statistics_do_not_count() -> None:
    """A hundred times the update gives the same values: both are clipped to C, and C alone scales the noise."""
    step = {"kind": "dp-gaussian", "clip_norm": 0.01, "noise_multiplier": 3}
    small, large = (flatten_values(defend(update(scale=scale), step)) for scale in (1.0, 100.0))
    np.testing.assert_allclose(small, large, rtol=1e-4, atol=1e-6)
    withheld = defend(update(), {**step, "clip_norm": 0.7, "noise_multiplier": 0, "statistics": "withheld"})
    assert withheld.statistics == {}
    assert flatten_values(withheld).norm().item() == pytest.approx(0.7, rel=1e-6)


def test_freezing_withholds_statistics_alone_and_files_keep_that(tmp_path: Path) -> None:
    state = small_state(dtype=torch.float32)
    trained = local_update(state, small_batches(2, dtype=torch.float32), SETTINGS)
    frozen = defend(trained, {"kind": "freeze-bn-statistics"})
    assert_same(frozen, ClientUpdate(trained.weights, {}, trained.steps))
    stored = StoredUpdate(frozen, {"round": 1}, [[0, 1]], [0, 1], SETTINGS, exact_statistics=trained.statistics)
    save_update(tmp_path / "update.safetensors", stored)
    loaded = load_update(tmp_path / "update.safetensors", state)
    assert_same(loaded.update, ClientUpdate({n: v.detach() for n, v in frozen.weights.items()}, {}, frozen.steps))
    assert set(loaded.exact_statistics) == set(trained.statistics)


@pytest.mark.parametrize("share", [1e-6, 0.013, 0.5, 1.0])
def test_top_k_is_that_of_a_naive_sort(share: float) -> None:
    before = update()
    flat = np.concatenate([value.ravel() for value in arrays(before).values()])
    k = max(1, round(share * len(flat)))
    naive = np.zeros_like(flat)
    for position in sorted(range(len(flat)), key=lambda index: -abs(flat[index]))[:k]:
        naive[position] = flat[position]
    np.testing.assert_array_equal(flatten_values(defend(before, {"kind": "top-k", "share": share})).numpy(), naive)
    ties = ClientUpdate({"w": torch.tensor([1.0, -1, 1, 1])}, {"s": torch.tensor([1.0, -1])}, 1)
    assert flatten_values(defend(ties, {"kind": "top-k", "share": 0.5})).tolist() == [1, -1, 1, 0, 0, 0]


@pytest.mark.parametrize("kind", ["top-k", "quantize", "sign"])
def test_error_feedback_conserves_the_sum(kind: str) -> None:
    """Over rounds: all that was shared plus what is still remembered is all that was trained."""
    steps = DefenseSteps.model_validate([{"kind": kind, **EXAMPLES[kind], "error_feedback": True}])
    memory, shared = None, torch.zeros(())
    for seed in range(4):
        defended = apply_defenses(update(seed), steps, generator=generator(seed), memory=memory)
        memory, shared = defended.memory, shared + flatten_values(defended.update)
    assert memory is not None
    trained = sum(flatten_values(update(seed)) for seed in range(4))
    torch.testing.assert_close(shared + flatten_values(memory[0]), trained, rtol=0, atol=1e-5)
    assert apply_defenses(update(), DefenseSteps.model_validate([]), generator=generator()).memory == {}


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_quantisation_is_unbiased_and_its_error_bounded(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Enumerates the random draw on a grid of 200 midpoints: the mean is the value to 1/200 of a step."""
    before = update(size=100)
    total: dict[str, np.ndarray] = {name: np.zeros(value.shape) for name, value in arrays(before).items()}
    steps = {name: np.abs(value).max() / (2 ** (bits - 1) - 1) for name, value in arrays(before).items()}
    for draw in range(200):
        monkeypatch.setattr(torch, "rand", lambda shape, draw=draw, **_: torch.full(shape, (draw + 0.5) / 200))
        for name, value in arrays(defend(before, {"kind": "quantize", "bits": bits})).items():
            level = value / steps[name]
            np.testing.assert_allclose(level, np.round(level), atol=1e-4)
            assert (np.abs(value - arrays(before)[name]) < steps[name] * (1 + 1e-6)).all()
            total[name] += value / 200
    for name, value in arrays(before).items():
        np.testing.assert_allclose(total[name], value, atol=steps[name] / 200)


def test_signs_are_naive_signs() -> None:
    after = arrays(defend(update(), {"kind": "sign"}))
    for name, value in arrays(update()).items():
        np.testing.assert_allclose(after[name], np.sign(value) * np.mean(np.abs(value)), rtol=1e-6)


def test_partial_sharing_is_a_naive_loop() -> None:
    step = {"kind": "partial-sharing", "percentile": 60, "clip": 0.4, "exclude": ["v*"]}
    before = arrays(update())
    cutoff = np.percentile(np.abs(np.concatenate([value.ravel() for value in before.values()])), 60)
    after = arrays(defend(update(), step))
    for name, value in before.items():
        for old, new in zip(value.ravel(), after[name].ravel(), strict=True):
            per_step = old / 3
            shared = 0.0 if name == "v" or abs(old) < cutoff else 3 * max(-0.4, min(0.4, per_step))
            assert new == pytest.approx(shared, rel=1e-6)
    with pytest.raises(LeakpipeError, match=r"partial-sharing: exclude: 'features.\*'"):
        defend(update(), {**step, "exclude": ["features.*"]})


def test_steps_apply_in_the_order_listed() -> None:
    before = update()
    assert defend(before) is before
    clip, sign = {"kind": "clip", "clip_norm": 1.0}, {"kind": "sign"}
    assert_same(defend(before, clip, sign), defend(defend(before, clip), sign))
    assert flatten_values(defend(before, sign, clip)).norm().item() == pytest.approx(1, rel=1e-6)
    assert flatten_values(defend(before, clip, sign)).norm().item() < 0.95
    noise = {"kind": "gaussian", "sigma0": 1}
    once = generator()
    one_step = DefenseSteps.model_validate([noise])
    by_hand = apply_defenses(before, one_step, generator=once).update
    by_hand = apply_defenses(by_hand, one_step, generator=once).update
    assert_same(defend(before, noise, noise), by_hand)


def test_what_makes_infinity_is_named_and_what_was_given_it_is_not() -> None:
    with pytest.raises(LeakpipeError, match=r"'gaussian' made values of '\w' that are not finite"):
        defend(update(scale=1e34), {"kind": "gaussian", "sigma0": 1e6})
    broken = ClientUpdate({"w": torch.tensor([torch.nan, 1.0])}, {}, 1)
    assert defend(broken, {"kind": "sign"}).weights["w"].isnan().any()


NOISE, SIGN = {"kind": "gaussian", "sigma0": 1}, {"kind": "sign"}
DP_SGD, AGGREGATE = (
    {"kind": "dp-sgd", "clip_norm": 1, "noise_multiplier": 2},
    {"kind": "secure-aggregation", "clients": 2},
)


@pytest.mark.parametrize("step", [DP_SGD, {"kind": "mixup"}, AGGREGATE])
def test_steps_in_training_and_of_the_server_do_not_act_on_an_update(step: dict[str, Any]) -> None:
    alone = DefenseSteps.model_validate([step])
    assert defend(before := update(), step) is before
    assert training_step(alone) == (None if step is AGGREGATE else alone.root[0])
    assert count_aggregated(alone) == (2 if step is AGGREGATE else 1)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([{"kind": "laplace"}], "give either scale0 or scale"),
        ([{"kind": "laplace", "scale": 1, "scale0": 1}], "give either scale0 or scale"),
        ([{"kind": "laplace", "scale0": 1, "clip_norm": 1}], "clip_norm needs scale"),
        ([AGGREGATE, SIGN], "must be the last step"),
        ([NOISE, DP_SGD], "must be the first step"),
        ([DP_SGD, DP_SGD], "must be the first step"),
        ([NOISE, {"kind": "mixup"}], "mixup acts in training"),
        ([{"kind": "quantize", "bits": 1}], "greater than or equal to 2"),
        ([{"kind": "svt", "epsilon_query": 0.1}], "must add up to epsilon"),
        ([{"kind": "svt", "epsilon_query": 0.05, "epsilon_threshold": 0.06}], "must add up to epsilon"),
        ([{"kind": "exclude-vars", "exclude": "head["}], "no regular expression"),
        ([{"kind": "flower-fixed-clipping", "clipping_norm": 1, "noise_multiplier": 0}] * 2, "one of them, once"),
    ],
)
def test_contradictions_are_refused(steps: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DefenseSteps.model_validate(steps)
