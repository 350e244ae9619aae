"""Filters of NVFlare and Flower: each against a naive computation, and against the framework where it is installed.

The frameworks are in no extra. To compare, call `pytest.main` in a Python whose `sys.path` ends with the packages of
an environment that has them (nvflare 2.9, flwr 1.42).
"""

import math
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from leakpipe.attacks.objective import Objective
from leakpipe.client.update import ClientUpdate
from leakpipe.defenses.compose import apply_defenses
from leakpipe.defenses.flower import FlowerServer, effective_multiplier
from leakpipe.errors import LeakpipeError
from leakpipe.federation.files import StoredUpdate, load_update, save_update
from leakpipe.federation.server import average_updates
from leakpipe.params.attack_settings import AttackSettings
from leakpipe.params.defenses import DefenseSteps, FlowerAdaptiveClippingParams
from tests.conftest import SETTINGS
from tests.unit.attacking import observe, random_images, small_model

STEPS = 3
COUNTERS = ("first.num_batches_tracked", "second.num_batches_tracked")
Filter = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


def update(seed: int = 0, size: int = 400, scale: float = 0.02) -> ClientUpdate:
    """Two layers with batch normalisation."""
    drawn = torch.Generator().manual_seed(seed)

    def values(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=drawn) * scale

    weights = {"first.weight": values(4, size // 4), "second.weight": values(size), "head.bias": values(5)}
    parts = ("first.running_mean", "first.running_var", "second.running_mean", "second.running_var")
    return ClientUpdate(weights, {name: values(7) for name in parts}, STEPS)


def defend(given: ClientUpdate, step: dict[str, Any], seed: int = 0) -> ClientUpdate:
    steps = DefenseSteps.model_validate([step])
    return apply_defenses(given, steps, generator=torch.Generator().manual_seed(seed)).update


def as_arrays(given: ClientUpdate, *, counters: bool) -> dict[str, np.ndarray]:
    """The update as a framework holds it: a state dict of differences."""
    arrays = {name: value.numpy().copy() for name, value in {**given.weights, **given.statistics}.items()}
    return arrays | {name: np.array(given.steps) for name in COUNTERS if counters}


def assert_same(found: ClientUpdate, expected: dict[str, np.ndarray], *, counters: bool = False) -> None:
    arrays = as_arrays(found, counters=counters)
    assert set(arrays) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(arrays[name], value, rtol=2e-6, atol=1e-12, err_msg=name)


def naive_percentile(arrays: dict[str, np.ndarray], percentile: float, gamma: float) -> dict[str, np.ndarray]:
    magnitudes = sorted(abs(float(value)) / STEPS for array in arrays.values() for value in np.ravel(array))
    cutoff = np.percentile(magnitudes, percentile)

    def shared(value: float) -> float:
        return 0.0 if abs(value) / STEPS < cutoff else STEPS * max(-gamma, min(gamma, value / STEPS))

    return {
        name: array if array.ndim == 0 else np.reshape([shared(float(v)) for v in array.ravel()], array.shape)
        for name, array in arrays.items()
    }


@pytest.mark.parametrize("counters", [True, False])
@pytest.mark.parametrize("settings", [{}, {"percentile": 60, "gamma": 0.003}, {"percentile": 99.9, "gamma": 9}])
def test_percentile_is_a_naive_loop_and_counters_count(settings: dict[str, float], counters: bool) -> None:
    found = defend(update(), {"kind": "percentile", "count_batches": counters, **settings})
    expected = naive_percentile(as_arrays(update(), counters=counters), **{"percentile": 10, "gamma": 0.01} | settings)
    assert_same(found, expected, counters=counters)
    if settings.get("percentile") == 99.9:  # the two counters are the largest: they take the place of a value
        assert any(value.any() for value in found.weights.values()) != counters


@pytest.mark.parametrize(
    ("exclude", "removed"),
    [
        (["second.weight", "nowhere"], {"second.weight"}),
        (["second"], set()),
        ("second", {"second.weight", "second.running_mean", "second.running_var"}),
        (r"^first\.running|bias$", {"first.running_mean", "first.running_var", "head.bias"}),
        ("", set()),
    ],
)
def test_variables_are_removed_by_list_or_expression(exclude: list[str] | str, removed: set[str]) -> None:
    found = defend(update(), {"kind": "exclude-vars", "exclude": exclude})
    assert found.removed == removed
    assert_same(found, {n: v for n, v in as_arrays(update(), counters=False).items() if n not in removed})
    with pytest.raises(LeakpipeError, match="leaves no weight"):
        defend(update(), {"kind": "exclude-vars", "exclude": "."})


def test_what_is_removed_stays_the_servers_and_is_not_compared(tmp_path: Any) -> None:
    state, images = small_model(), random_images(1, dtype=torch.float32)
    trained = observe(state, images, [1]).update
    layer = next(name for name in trained.statistics if name.endswith("running_var")).removesuffix("running_var")
    pattern = f"^head|^{re.escape(layer)}running"
    sent = defend(trained, {"kind": "exclude-vars", "exclude": pattern})
    assert sent.removed
    moved = average_updates(state, [sent], [1])
    for name in sent.removed:
        assert torch.equal({**moved.weights, **moved.statistics}[name], {**state.weights, **state.statistics}[name])
    stored = StoredUpdate(sent, {"round": 1}, [[0]], [1], SETTINGS)
    save_update(tmp_path / "update.safetensors", stored)
    assert load_update(tmp_path / "update.safetensors", state).update.removed == sent.removed
    settings = AttackSettings(batch_norm_weight=1.0, layer_weighting=0.5)
    for engine in ("double-backward", "autograd"):
        seen = observe(state, images, [1], update=sent)
        objective = Objective(seen, settings.model_copy(update={"engine": engine}), seed=0)
        terms = objective.evaluate(images, torch.tensor([1])).terms
        assert terms["update_distance"] < 1e-6
        assert terms["batch_statistics"] < 1e-6
        assert objective.statistics is not None
        assert layer.rstrip(".") not in objective.statistics.target
    lacking = ClientUpdate(sent.weights, sent.statistics, sent.steps)
    with pytest.raises(LeakpipeError, match="is missing; the model has it"):
        observe(state, images, [1], update=lacking)


EXACT_SVT = {"kind": "svt", "epsilon": 1e12, "epsilon_release": 1e12, "replace": False}


def largest_values(arrays: dict[str, np.ndarray], share: float, gamma: float) -> tuple[float, dict[str, np.ndarray]]:
    """A threshold that exactly that share of the values reach, and those values clipped."""
    magnitudes = np.sort([abs(v) / STEPS for array in arrays.values() for v in np.ravel(array).tolist()])[::-1]
    kept = math.ceil(share * len(magnitudes))
    tau = float(magnitudes[kept - 1] + magnitudes[kept]) / 2
    return tau, {
        name: array
        if array.ndim == 0
        else np.where(np.abs(array) / STEPS > tau, array.clip(-gamma * STEPS, gamma * STEPS), 0)
        for name, array in arrays.items()
    }


@pytest.mark.parametrize("counters", [True, False])
def test_the_sparse_vector_technique_without_noise_chooses_what_reaches_the_threshold(counters: bool) -> None:
    arrays = as_arrays(update(), counters=counters)
    tau, expected = largest_values(arrays, 0.1, 0.015)
    found = defend(update(), {**EXACT_SVT, "tau": tau, "gamma": 0.015, "count_batches": counters})
    assert_same(found, expected, counters=counters)
    with pytest.raises(LeakpipeError, match=r"svt: .* lower tau, epsilon or fraction"):
        defend(update(), {**EXACT_SVT, "tau": 1.0, "gamma": 0.015})


def test_the_sparse_vector_technique_at_its_defaults_draws_blindly_and_drowns_what_it_shares() -> None:
    """Scale of the noise on answers: 2γn/ε ≫ γ, so half of all are accepted; on values: 2γ/noise_var = 20γ."""
    before = update(size=100_000)
    found = defend(before, {"kind": "svt"})
    values = torch.cat([value.flatten() for value in [*found.weights.values(), *found.statistics.values()]])
    total = len(values) + len(COUNTERS)
    sent = math.ceil(0.1 * total)
    accepted = total / 2
    distinct = accepted * (1 - (1 - 1 / accepted) ** sent)
    assert len(values.nonzero()) == pytest.approx(distinct, rel=0.03)
    clipped = torch.cat([v.flatten() for v in [*before.weights.values(), *before.statistics.values()]])
    clipped = (clipped / STEPS).clamp(-1e-5, 1e-5)
    noise = (values / STEPS - clipped)[values != 0].numpy()
    assert stats.kstest(noise, "laplace", args=(0, 2e-4)).pvalue > 1e-3


def naive_clip(arrays: dict[str, np.ndarray], largest: float) -> dict[str, np.ndarray]:
    norm = math.sqrt(sum(float(v) ** 2 for array in arrays.values() for v in np.ravel(array)))
    return {n: array if array.ndim == 0 else array * min(1, largest / norm) for n, array in arrays.items()}


CLIPPING = {"kind": "flower-fixed-clipping", "noise_multiplier": 0.2}


@pytest.mark.parametrize("counters", [True, False])
@pytest.mark.parametrize("largest", [0.05, 0.6, 4.5])
def test_flowers_clipping_is_of_all_arrays_counters_included(largest: float, counters: bool) -> None:
    found = defend(update(), {**CLIPPING, "clipping_norm": largest, "count_batches": counters})
    assert_same(found, naive_clip(as_arrays(update(), counters=counters), largest), counters=counters)


def test_the_servers_noise_is_the_norms_over_the_clients_and_variances_stay_positive() -> None:
    state = small_model()
    server = FlowerServer.start(DefenseSteps.model_validate([{**CLIPPING, "clipping_norm": 10}]), clients=4)
    released = server.release(state, generator=torch.Generator().manual_seed(0))
    noise = torch.cat([(released.weights[n] - value).flatten() for n, value in state.weights.items()])
    assert noise.std().item() == pytest.approx(0.2 * 10 / 4, rel=5 / len(noise) ** 0.5)
    for name, value in released.statistics.items():
        assert not torch.equal(value, state.statistics[name])
        assert "var" not in name or bool((value >= 0).all())
    none = FlowerServer.start(DefenseSteps(()), clients=4)
    assert none.release(state, generator=torch.Generator()) is state
    assert none.next_round([update()], generator=torch.Generator()) is none


def adaptive(**settings: Any) -> FlowerAdaptiveClippingParams:
    given = {"kind": "flower-adaptive-clipping", "noise_multiplier": 0.0, "count_batches": False, **settings}
    return FlowerAdaptiveClippingParams.model_validate(given)


def test_the_adaptive_norm_follows_the_share_of_clipped_updates() -> None:
    server = FlowerServer.start(DefenseSteps((adaptive(initial_clipping_norm=0.3),)), clients=4)
    trained, norm = [update(seed, scale=0.005 * (1 + seed)) for seed in range(4)], 0.3
    norms = [math.sqrt(sum(float((v**2).sum()) for v in as_arrays(u, counters=False).values())) for u in trained]
    for _ in range(12):
        assert server.clipping is not None
        assert server.clipping.clipping_norm == pytest.approx(norm, rel=1e-6)
        shared = [apply_defenses(u, server.steps, generator=torch.Generator()).update for u in trained]
        server = server.next_round(shared, generator=torch.Generator())
        norm *= math.exp(-0.2 * (sum(each > norm for each in norms) / 4 - 0.5))
    assert norms[1] < norm < norms[2]


def test_too_little_noise_on_the_count_is_refused() -> None:
    assert effective_multiplier(adaptive(noise_multiplier=0.4), 5) == pytest.approx((0.4**-2 - 0.5**-2) ** -0.5)
    with pytest.raises(LeakpipeError, match="must be below twice the deviation"):
        FlowerServer.start(DefenseSteps((adaptive(noise_multiplier=0.5),)), clients=5)


def nvflare_filter(name: str, **settings: Any) -> Filter:
    """A filter of the installed NVFlare, as a function from a state dict to what leaves the client."""
    filters = pytest.importorskip("nvflare.app_common.filters", reason="nvflare is not installed")
    from nvflare.apis.dxo import DXO, DataKind, MetaKey  # type: ignore[import-not-found, unused-ignore]
    from nvflare.apis.fl_context import FLContext  # type: ignore[import-not-found, unused-ignore]
    from nvflare.apis.shareable import Shareable  # type: ignore[import-not-found, unused-ignore]

    def run(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        meta = {MetaKey.NUM_STEPS_CURRENT_ROUND: STEPS}
        given = DXO(DataKind.WEIGHT_DIFF, data={n: a.copy() for n, a in arrays.items()}, meta=meta)
        found = getattr(filters, name)(**settings).process_dxo(given, Shareable(), FLContext())
        return dict((given if found is None else found).data)

    return run


@pytest.mark.parametrize("counters", [True, False])
@pytest.mark.parametrize("settings", [{}, {"percentile": 60, "gamma": 0.003}, {"percentile": 100}])
def test_percentile_is_nvflares(settings: dict[str, float], counters: bool) -> None:
    expected = nvflare_filter("PercentilePrivacy", **settings)(as_arrays(update(), counters=counters))
    found = defend(update(), {"kind": "percentile", "count_batches": counters, **settings})
    assert_same(found, expected, counters=counters)


@pytest.mark.parametrize("exclude", [["second.weight", "nowhere"], ["second"], "second", r"^first\.running|bias$", ""])
def test_excluded_variables_are_nvflares(exclude: list[str] | str) -> None:
    expected = nvflare_filter("ExcludeVars", exclude_vars=exclude)(as_arrays(update(), counters=False))
    assert_same(defend(update(), {"kind": "exclude-vars", "exclude": exclude}), expected)


@pytest.mark.parametrize("counters", [True, False])
def test_the_sparse_vector_technique_is_nvflares(counters: bool) -> None:
    """Without noise value by value; at the defaults by the distribution, tensor by tensor."""
    arrays = as_arrays(update(), counters=counters)
    tau, _ = largest_values(arrays, 0.1, 0.015)
    exact = {"epsilon": 1e12, "epsilon_release": 1e12, "replace": False, "tau": tau, "gamma": 0.015}
    found = defend(update(), {"kind": "svt", "count_batches": counters, **exact})
    assert_same(found, nvflare_filter("SVTPrivacy", **exact)(arrays), counters=counters)
    before = update(size=20_000)
    np.random.seed(0)
    theirs = nvflare_filter("SVTPrivacy")(as_arrays(before, counters=counters))
    mine = as_arrays(defend(before, {"kind": "svt", "count_batches": counters}), counters=counters)
    for name in ("first.weight", "second.weight"):
        assert np.count_nonzero(mine[name]) == pytest.approx(np.count_nonzero(theirs[name]), rel=0.08)
        assert stats.ks_2samp(mine[name][mine[name] != 0], theirs[name][theirs[name] != 0]).pvalue > 1e-3


def flower() -> ModuleType:
    found = pytest.importorskip("flwr.supercore.differential_privacy", reason="flwr is not installed")
    assert isinstance(found, ModuleType)
    return found


@pytest.mark.parametrize("counters", [True, False])
@pytest.mark.parametrize("largest", [0.05, 0.6, 4.5])
def test_clipping_is_flowers(largest: float, counters: bool) -> None:
    arrays = as_arrays(update(), counters=counters)
    before = [np.zeros_like(array) for array in arrays.values()]
    after = list(arrays.values())
    flower().compute_clip_model_update(after, before, largest)
    found = defend(update(), {**CLIPPING, "clipping_norm": largest, "count_batches": counters})
    assert_same(found, dict(zip(arrays, after, strict=True)), counters=counters)


@pytest.mark.parametrize("multiplier", [0.0, 0.1, 0.4])
def test_the_adaptive_norm_is_flowers(multiplier: float) -> None:
    library = flower()
    from flwr.serverapp.strategy import (  # type: ignore[import-not-found, unused-ignore]
        DifferentialPrivacyClientSideAdaptiveClipping,
        FedAvg,
    )

    theirs = DifferentialPrivacyClientSideAdaptiveClipping(FedAvg(), multiplier, 5)
    params = adaptive(noise_multiplier=multiplier)
    assert effective_multiplier(params, 5) == pytest.approx(theirs.noise_multiplier)
    assert params.initial_clipping_norm == theirs.clipping_norm
    quiet = adaptive()
    theirs = DifferentialPrivacyClientSideAdaptiveClipping(FedAvg(), 0.0, 5)
    server = FlowerServer.start(DefenseSteps((quiet,)), clients=5)
    trained = [update(seed, scale=0.002 * (1 + seed)) for seed in range(5)]
    for _ in range(8):
        bits = []
        for each in trained:
            arrays = list(as_arrays(each, counters=False).values())
            bits.append(library.adaptive_clip_inputs_inplace(arrays, theirs.clipping_norm))
        shared = [apply_defenses(each, server.steps, generator=torch.Generator()).update for each in trained]
        server = server.next_round(shared, generator=torch.Generator())
        theirs._geometric_update(theirs._noisy_fraction(sum(bits), 5))
        assert server.clipping is not None
        assert server.clipping.clipping_norm == pytest.approx(theirs.clipping_norm, rel=1e-9)
