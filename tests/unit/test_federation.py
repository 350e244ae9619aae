"""Averaging and rounds against naive computations and closed forms."""

from dataclasses import replace

import pytest
import torch

from leakpipe.client.batches import make_batches
from leakpipe.client.local_update import local_update
from leakpipe.client.update import ClientUpdate, aggregate_updates
from leakpipe.data.partition import Split
from leakpipe.errors import LeakpipeError
from leakpipe.federation.files import CohortMember
from leakpipe.federation.server import average_updates
from leakpipe.federation.simulate import CapturedUpdate, FederationResult, measure_accuracy, simulate_federation
from leakpipe.models.batchnorm import batch_norm_layers
from leakpipe.models.state import forward_frozen
from leakpipe.params.defenses import DefenseSteps
from leakpipe.params.federation import ClientParams, FederationParams
from tests.conftest import SETTINGS, small_batches, small_state


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_average_and_aggregate_are_weighted_by_images() -> None:
    state = small_state()
    updates = [local_update(state, small_batches(2, seed=seed), SETTINGS) for seed in range(3)]
    after, seen = average_updates(state, updates, [1, 2, 5]), aggregate_updates(updates, [1, 2, 5])
    for part in ("weights", "statistics"):
        for name, value in getattr(after, part).items():
            parts = [getattr(u, part)[name] for u in updates]
            mean = (parts[0] + 2 * parts[1] + 5 * parts[2]) / 8
            torch.testing.assert_close(value, getattr(state, part)[name] + mean)
            torch.testing.assert_close(getattr(seen, part)[name], mean)


def test_average_keeps_variances_positive_and_refuses_nan() -> None:
    state = small_state()
    layers = list(batch_norm_layers(state.module))
    shared = local_update(state, small_batches(2), SETTINGS)
    noisy = {name: value - 7 for name, value in shared.statistics.items()}
    after = average_updates(state, [ClientUpdate(shared.weights, noisy, 1)], [1])
    assert all(after.statistics[f"{layer}.running_var"].min() == 0 for layer in layers)
    assert after.statistics[f"{layers[0]}.running_mean"].max() < -5
    broken = {**shared.weights, "head.bias": torch.full((2,), torch.nan, dtype=torch.float64)}
    with pytest.raises(LeakpipeError, match=r"'head.bias' is not finite: training diverged"):
        average_updates(state, [ClientUpdate(broken, shared.statistics, 1)], [1])


IMAGES = torch.cat(
    [torch.rand(20, 1, 8, 8, generator=generator(1)) * 0.4, torch.rand(20, 1, 8, 8, generator=generator(2)) * 0.4 + 0.6]
)
LABELS = torch.arange(2).repeat_interleave(20)
SPLIT = Split(
    clients={"one": (0,), "many": tuple(range(1, 8)) + tuple(range(20, 28))},
    validation=(), test=tuple(range(10, 20)) + tuple(range(30, 40)), public=(8, 9),
)  # fmt: skip


def federate(
    *defense: dict[str, object],
    seed: int = 0,
    captured: tuple[int, ...] = (1, 3),
    training: dict[str, object] | None = None,
    own: dict[str, object] | None = None,
) -> FederationResult:
    """Four rounds; `own` is the training of the client "one"."""
    params = FederationParams(
        rounds=4, captured_rounds=captured, learning_rate=0.05, local_epochs=2, batch_norm_momentum=0.1,
        training=training or {},
        clients={
            "one": ClientParams(images=1, batch_size=1, training=own),
            "many": ClientParams(images=15, batch_size=4),
        },
    )  # fmt: skip
    initial = small_state(dtype=torch.float32)
    steps = DefenseSteps.model_validate(defense)
    return simulate_federation(initial, IMAGES, LABELS, SPLIT, params, defense=steps, attacked=["one"], seed=seed)


def gaussian(sigma0: float) -> dict[str, object]:
    return {"kind": "gaussian", "sigma0": sigma0}


def test_mixup_changes_what_others_train_on_but_not_what_a_client_of_one_image_sends() -> None:
    plain, mixed = federate(), federate({"kind": "mixup"})
    (first, third), (mixed_first, mixed_third) = plain.captured, mixed.captured
    for name, value in first.update.weights.items():
        torch.testing.assert_close(mixed_first.update.weights[name], value)
    assert any(
        not torch.allclose(mixed_third.before.weights[name], value) for name, value in third.before.weights.items()
    )


def test_a_federation_learns_and_captures_what_was_asked() -> None:
    result = federate()
    assert [(c.round, c.client) for c in result.captured] == [(1, "one"), (3, "one")]
    assert [a.round for a in result.accuracy] == [1, 2, 3, 4]
    assert result.accuracy[-1].test > 0.9
    assert result.accuracy[-1].validation is None
    assert result.captured[0].labels == [0]
    for captured in result.captured:
        assert len(captured.schedule) == 2
        batches = make_batches(IMAGES[:1], LABELS[:1], captured.schedule)
        again = local_update(captured.before, batches, SETTINGS)
        torch.testing.assert_close(dict(captured.update.weights), dict(again.weights), rtol=0, atol=0)


def test_clients_train_as_the_parameters_say_and_may_keep_their_optimizer() -> None:
    """The first round is the same with a kept optimiser as with a fresh one, the second is not."""
    momentum = {"kind": "sgd", "momentum": 0.9, "weight_decay": 0.5}
    trainings = ({}, {"optimizer": momentum}, {"optimizer": momentum, "optimizer_state": "kept"})
    plain, fresh, kept = (federate(captured=(1, 2), training=training).captured for training in trainings)
    assert [each.settings.training.optimizer.kind for each in fresh] == ["sgd"] * 2
    weights = [[each.update.weights["head.weight"] for each in run] for run in (plain, fresh, kept)]
    (plain_first, _), (fresh_first, fresh_second), (kept_first, kept_second) = weights
    assert torch.equal(fresh_first, kept_first)
    assert not torch.allclose(plain_first, fresh_first, rtol=1e-3)
    assert not torch.allclose(fresh_second, kept_second, rtol=1e-3)


def test_a_client_may_train_in_its_own_way() -> None:
    """Its first update is that of a federation that trains so, or of one that does not, while the model moves on."""
    adam = {"optimizer": {"kind": "adam"}}
    plain, own, all_of_them = federate(), federate(own=adam), federate(training=adam)
    name = "head.weight"
    first, third = ([run.captured[place].update.weights[name] for run in (plain, own, all_of_them)] for place in (0, 1))
    assert torch.equal(first[1], first[2])
    assert not torch.allclose(first[0], first[1], rtol=1e-3)
    assert not torch.allclose(third[1], third[2], rtol=1e-3)


def test_same_seed_same_federation_and_noise_differs_between_clients_and_rounds() -> None:
    first, second, other = federate(gaussian(1)), federate(gaussian(1)), federate(seed=1)
    (early, late), (_, again), (_, others) = first.captured, second.captured, other.captured
    torch.testing.assert_close(dict(late.update.weights), dict(again.update.weights), rtol=0, atol=0)
    assert not torch.equal(late.before.weights["head.weight"], others.before.weights["head.weight"])
    assert not torch.equal(early.update.weights["head.bias"], late.update.weights["head.bias"])


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (6, r"round \d: the averaged model's '.*' is not finite"),
        (8, r"round 1: defence 'gaussian' made values of '.*'"),
    ],
)
def test_divergence_names_the_round_and_infinite_noise_the_defence(steps: int, said: str) -> None:
    with pytest.raises(LeakpipeError, match=said):
        federate(*[gaussian(1e6)] * steps)


def test_the_server_keeps_its_own_statistics_where_clients_withhold_theirs() -> None:
    result = federate({"kind": "freeze-bn-statistics"})
    first, later = result.captured
    assert first.update.statistics == {}
    assert first.exact_statistics
    torch.testing.assert_close(dict(later.before.statistics), dict(first.before.statistics), rtol=0, atol=0)
    assert not torch.equal(later.before.weights["head.weight"], first.before.weights["head.weight"])


def test_error_feedback_is_remembered_from_round_to_round() -> None:
    """A client's shares of two rounds and what it still holds back add up to what it would have shared."""
    forgetful, catching_up = (
        federate({"kind": "top-k", "share": 0.1, "error_feedback": feedback}) for feedback in (False, True)
    )
    same, other = (result.captured for result in (forgetful, catching_up))
    torch.testing.assert_close(dict(same[0].update.weights), dict(other[0].update.weights), rtol=0, atol=0)
    assert not torch.equal(same[1].update.weights["head.weight"], other[1].update.weights["head.weight"])


def test_under_secure_aggregation_the_server_sees_the_weighted_mean_and_trains_the_same() -> None:
    alone = federate(captured=(1, 2))
    together = federate({"kind": "secure-aggregation", "clients": 2}, captured=(1, 2))
    seen = together.captured[0].update
    for name, before in together.captured[0].before.weights.items():
        torch.testing.assert_close(before + seen.weights[name], together.captured[1].before.weights[name])
    assert seen.steps == alone.captured[0].update.steps
    assert together.accuracy == alone.accuracy


def test_partners_are_those_that_follow_in_a_circle() -> None:
    """Of one, many and few, the last is seen with the first, whose names, labels and orders are kept."""
    params = FederationParams(
        rounds=1, captured_rounds=(1,), learning_rate=0.05, local_epochs=1, batch_norm_momentum=0.1,
        clients={name: ClientParams(images=n, batch_size=1) for name, n in (("one", 1), ("many", 4), ("few", 3))},
    )  # fmt: skip
    split = replace(SPLIT, clients={"one": (0,), "many": (1, 2, 20, 21), "few": (3, 22, 23)})

    def capture(*defense: dict[str, object]) -> dict[str, CapturedUpdate]:
        steps = DefenseSteps.model_validate(defense)
        result = simulate_federation(
            small_state(dtype=torch.float32), IMAGES, LABELS, split, params,
            defense=steps, attacked=["one", "many", "few"], seed=0,
        )  # fmt: skip
        return {captured.client: captured for captured in result.captured}

    alone, pairs = capture(), capture({"kind": "secure-aggregation", "clients": 2})
    for name, other in (("one", "many"), ("many", "few"), ("few", "one")):
        (member,) = pairs[name].cohort
        assert member == CohortMember(other, alone[other].schedule, alone[other].labels)
        images = [params.clients[client].images for client in (name, other)]
        expected = aggregate_updates([alone[name].update, alone[other].update], images)
        torch.testing.assert_close(dict(pairs[name].update.weights), dict(expected.weights), rtol=0, atol=0)
        assert alone[name].cohort == []
    everybody = capture({"kind": "secure-aggregation", "clients": 3})
    assert [member.client for member in everybody["many"].cohort] == ["few", "one"]


def test_accuracy_is_the_share_of_right_answers() -> None:
    state = small_state(dtype=torch.float32)
    predicted = forward_frozen(state, IMAGES).argmax(dim=1)
    assert measure_accuracy(state, IMAGES, predicted, range(40)) == 1
    assert measure_accuracy(state, IMAGES, 1 - predicted, range(40)) == 0
    flipped = torch.where(torch.arange(40) < 10, 1 - predicted, predicted)
    assert measure_accuracy(state, IMAGES, flipped, range(40)) == 0.75
