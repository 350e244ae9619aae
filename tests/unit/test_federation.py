"""Defences, averaging and rounds against naive computations and closed forms."""

import numpy as np
import pytest
import torch

from leakpipe.data.partition import Split
from leakpipe.defenses.compose import apply_defenses
from leakpipe.defenses.gaussian import add_gaussian_noise, nonzero_percentile
from leakpipe.errors import LeakpipeError
from leakpipe.federation.local import ClientUpdate, local_update
from leakpipe.federation.server import average_updates
from leakpipe.federation.simulate import FederationResult, measure_accuracy, simulate_federation
from leakpipe.models.state import batch_norm_layers, forward_frozen
from leakpipe.params_defenses import DefenseSteps, GaussianParams
from leakpipe.params_federation import ClientParams, FederationParams
from tests.conftest import SETTINGS, small_batches, small_state


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(sigma0: float) -> GaussianParams:
    return GaussianParams(kind="gaussian", sigma0=sigma0)


def update(seed: int = 0, size: int = 500) -> ClientUpdate:
    drawn = generator(seed)
    weights = torch.randn(size, generator=drawn)
    weights[: size // 5] = 0
    return ClientUpdate({"w": weights}, {"s": torch.randn(size // 10, generator=drawn)}, steps=3)


@pytest.mark.parametrize("percentile", [50.0, 95.0, 100.0])
def test_percentile_is_numpys_of_the_non_zero_values_of_the_whole_update(percentile: float) -> None:
    values = np.concatenate([update().weights["w"].numpy(), update().statistics["s"].numpy()]).astype(np.float64)
    expected = np.percentile(np.abs(values[values != 0]), percentile)
    assert nonzero_percentile(update(), percentile) == pytest.approx(expected, rel=1e-12)


def test_noise_has_the_papers_standard_deviation() -> None:
    """10⁶ values: the sample standard deviation is within 1 % of σ0·p (its own error is 0.07 %)."""
    before = update(size=1_000_000)
    after = add_gaussian_noise(before, gaussian(5), generator=generator())
    expected = 5 * nonzero_percentile(before, 95)
    for part in ("weights", "statistics"):
        for name, value in getattr(before, part).items():
            noise = getattr(after, part)[name] - value
            assert noise.std().item() == pytest.approx(expected, rel=0.01)
            assert abs(noise.mean().item()) < 5 * expected / len(noise) ** 0.5
    assert after.steps == before.steps


def test_noise_of_zero_and_of_an_all_zero_update_changes_nothing() -> None:
    same = add_gaussian_noise(update(), gaussian(0), generator=generator())
    torch.testing.assert_close(same.weights, update().weights, rtol=0, atol=0)
    silent = ClientUpdate({"w": torch.zeros(4)}, {}, steps=1)
    assert not add_gaussian_noise(silent, gaussian(5), generator=generator()).weights["w"].any()


def test_defences_apply_in_order_and_change_nothing_passed_in() -> None:
    before = update()
    kept = before.weights["w"].clone()
    assert apply_defenses(before, [], generator=generator()) is before
    both = apply_defenses(before, [gaussian(1), gaussian(2)], generator=generator())
    shared = generator()
    by_hand = add_gaussian_noise(
        add_gaussian_noise(before, gaussian(1), generator=shared), gaussian(2), generator=shared
    )
    torch.testing.assert_close(both.weights, by_hand.weights, rtol=0, atol=0)
    torch.testing.assert_close(before.weights["w"], kept, rtol=0, atol=0)


def test_average_is_weighted_by_images() -> None:
    state = small_state()
    updates = [local_update(state, small_batches(2, seed=seed), SETTINGS) for seed in range(3)]
    after = average_updates(state, updates, [1, 2, 5], batch_norm_layers=batch_norm_layers(state.module))
    for part in ("weights", "statistics"):
        for name, value in getattr(after, part).items():
            parts = [getattr(u, part)[name] for u in updates]
            expected = getattr(state, part)[name] + (parts[0] + 2 * parts[1] + 5 * parts[2]) / 8
            torch.testing.assert_close(value, expected)


def test_average_keeps_variances_positive_and_refuses_nan() -> None:
    state = small_state()
    layers = batch_norm_layers(state.module)
    shared = local_update(state, small_batches(2), SETTINGS)
    noisy = {name: value - 7 for name, value in shared.statistics.items()}
    after = average_updates(state, [ClientUpdate(shared.weights, noisy, 1)], [1], batch_norm_layers=layers)
    assert all(after.statistics[f"{layer}.running_var"].min() == 0 for layer in layers)
    assert after.statistics[f"{layers[0]}.running_mean"].max() < -5
    broken = {**shared.weights, "head.bias": torch.full((2,), torch.nan, dtype=torch.float64)}
    with pytest.raises(LeakpipeError, match=r"'head.bias' is not finite: training diverged"):
        average_updates(state, [ClientUpdate(broken, shared.statistics, 1)], [1], batch_norm_layers=layers)


IMAGES = torch.cat(
    [torch.rand(20, 1, 8, 8, generator=generator(1)) * 0.4, torch.rand(20, 1, 8, 8, generator=generator(2)) * 0.4 + 0.6]
)
LABELS = torch.arange(2).repeat_interleave(20)
SPLIT = Split(
    clients={"one": (0,), "many": tuple(range(1, 8)) + tuple(range(20, 28))},
    validation=(), test=tuple(range(10, 20)) + tuple(range(30, 40)), public=(8, 9),
)  # fmt: skip


def federate(*, defense: tuple[GaussianParams, ...] = (), seed: int = 0) -> FederationResult:
    params = FederationParams(
        rounds=4, captured_rounds=(1, 3), learning_rate=0.05, local_epochs=2, batch_norm_momentum=0.1,
        clients={"one": ClientParams(images=1, batch_size=1), "many": ClientParams(images=15, batch_size=4)},
    )  # fmt: skip
    initial = small_state(dtype=torch.float32)
    return simulate_federation(
        initial, IMAGES, LABELS, SPLIT, params, defense=DefenseSteps(defense), attacked=["one"], seed=seed
    )


def test_a_federation_learns_and_captures_what_was_asked() -> None:
    result = federate()
    assert [(c.round, c.client) for c in result.captured] == [(1, "one"), (3, "one")]
    assert [a.round for a in result.accuracy] == [1, 2, 3, 4]
    assert result.accuracy[-1].test > 0.9
    assert result.accuracy[-1].validation is None
    assert result.captured[0].labels == [0]
    assert len(result.captured[0].schedule) == 2


def test_a_captured_update_is_what_local_training_gives() -> None:
    captured = federate().captured[1]
    from leakpipe.federation.local import LocalSettings, make_batches

    again = local_update(
        captured.before, make_batches(IMAGES[:1], LABELS[:1], captured.schedule), LocalSettings(learning_rate=0.05)
    )
    torch.testing.assert_close(dict(captured.update.weights), dict(again.weights), rtol=0, atol=0)


def test_same_seed_same_federation_and_noise_differs_between_clients_and_rounds() -> None:
    first, second, other = federate(defense=(gaussian(1),)), federate(defense=(gaussian(1),)), federate(seed=1)
    torch.testing.assert_close(
        dict(first.captured[1].update.weights), dict(second.captured[1].update.weights), rtol=0, atol=0
    )
    assert not torch.equal(
        first.captured[1].before.weights["head.weight"], other.captured[1].before.weights["head.weight"]
    )
    assert not torch.equal(first.captured[0].update.weights["head.bias"], first.captured[1].update.weights["head.bias"])


def test_divergence_names_the_round() -> None:
    with pytest.raises(LeakpipeError, match=r"round \d: the averaged model's '.*' is not finite"):
        federate(defense=(gaussian(1e6),) * 8)


def test_accuracy_is_the_share_of_right_answers() -> None:
    state = small_state(dtype=torch.float32)
    predicted = forward_frozen(state, IMAGES).argmax(dim=1)
    assert measure_accuracy(state, IMAGES, predicted, range(40)) == 1
    assert measure_accuracy(state, IMAGES, 1 - predicted, range(40)) == 0
    flipped = torch.where(torch.arange(40) < 10, 1 - predicted, predicted)
    assert measure_accuracy(state, IMAGES, flipped, range(40)) == 0.75
