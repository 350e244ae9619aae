"""The search: levels of the pyramid, bounds, restarts, divergence, convergence, curves."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from leakpipe.attacks.candidates import start_candidates
from leakpipe.attacks.engines.double_backward import engine
from leakpipe.attacks.objective import Evaluation, Objective
from leakpipe.attacks.search import Search
from leakpipe.attacks.search_state import SearchState
from leakpipe.params.attack_settings import AttackSettings
from tests.unit.attacking import observe_small, searching


def finish(search: Search, state: SearchState | None = None) -> SearchState:
    state = state or search.start()
    while not state.stopped:
        state = search.advance(state)
    return state


def test_pyramid_levels_share_the_iterations() -> None:
    search = searching(observe_small(images=2), pyramid=(2, 4, 8), iterations=6, restarts=3)
    state = search.start()
    sizes, starts = [], []
    while not state.stopped:
        state = search.advance(state)
        sizes.append(state.variables.shape)
        starts.append(state.optimizer_start)
    assert sizes == [(3, 2 * side * side) for side in (2, 2, 4, 4, 8, 8)]
    assert starts == [0, 0, 2, 2, 4, 4]  # the optimiser begins anew
    assert search.result(state)[0].shape == (2, 1, 8, 8)
    assert state.stopped == "finished"


def test_a_coarse_level_enters_the_objective_at_full_size() -> None:
    observation = observe_small(images=1)
    search = searching(observation, pyramid=(4,), iterations=1, total_variation_weight=0.3, start="noise")
    state = search.start()
    assert state.variables.shape == (1, 16)
    coarse = state.variables.view(1, 1, 4, 4)
    full = interpolate(coarse, size=(8, 8), mode="bilinear")
    expected = Objective(observation, search.settings, seed=0).evaluate(full, observation.client.labels).objective
    state = search.advance(state)
    assert float(state.best_objective[0]) == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(search.result(state)[0], full)


@pytest.mark.parametrize("heights", [(1, 2, 3, 5, 8), (3, 8)])
@pytest.mark.parametrize("iterations", [1, 2, 3, 7])
def test_levels_that_do_not_divide_the_iterations(heights: tuple[int, ...], iterations: int) -> None:
    search = searching(observe_small(images=1), pyramid=heights, iterations=iterations, start="noise")
    state = finish(search)
    assert state.iteration == iterations
    assert search.result(state)[0].shape == (1, 1, 8, 8)
    if iterations >= len(heights):
        assert state.variables.shape == (1, 64)


def test_pyramid_of_labels_searched_too() -> None:
    observation = observe_small(images=2)
    search = Search(observation, AttackSettings(pyramid=(4, 8), iterations=4), None, seed=0)
    state = finish(search)
    assert state.variables.shape == (1, 2 * 64 + 2 * 3)
    images, labels, _ = search.result(state)
    assert images.shape == (2, 1, 8, 8)
    assert labels.shape == (2,)


def test_sigmoid_keeps_candidates_strictly_inside() -> None:
    search = searching(observe_small(images=1), bounds="sigmoid", step_size=3.0, iterations=4, start="noise")
    state = finish(search)
    assert state.variables.abs().max() > 3  # free values leave [0, 1] by far
    images = search.result(state)[0]
    assert 0 < images.min() < images.max() < 1


def test_sigmoid_starts_where_it_is_told() -> None:
    search = searching(observe_small(images=1), bounds="sigmoid", start="noise")
    started = start_candidates(search.observation, search.settings, torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        search.start().variables.sigmoid(), started.flatten(1).clamp(1e-3, 1 - 1e-3), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(("bounds", "inside"), [("clamp", True), ("none", False)])
def test_clamping_keeps_every_iterate_inside_and_no_bounds_only_the_result(bounds: str, inside: bool) -> None:
    search = searching(observe_small(images=1), bounds=bounds, step_size=2.0, iterations=4, schedule="constant")
    state = finish(search)
    assert bool(((state.variables >= 0) & (state.variables <= 1)).all()) == inside
    assert 0 <= search.result(state)[0].min() <= search.result(state)[0].max() <= 1


def alone(state: SearchState, restart: int) -> SearchState:
    """Only this restart of a search that has not begun."""
    kept = slice(restart, restart + 1)
    return replace(
        state,
        variables=state.variables[kept],
        optimizer_state={name: value[kept] for name, value in state.optimizer_state.items()},
        best=state.best[kept],
        best_objective=state.best_objective[kept],
        alive=state.alive[kept],
    )


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_restarts_are_searches_of_their_own_and_the_best_is_kept(optimizer: str) -> None:
    observation = observe_small(images=1, dtype=torch.float64)
    settings = {"start_jitter": 0.3, "restarts": 3, "iterations": 6, "optimizer": optimizer, "bounds": "none"}
    search = searching(observation, **settings)
    assert search.objective.together >= 3
    together = finish(search)
    objectives, images = [], []
    for restart in range(3):
        state = finish(search, alone(search.start(), restart))
        objectives.append(search.result(state)[2])
        images.append(search.result(state)[0])
    assert together.best_objective.tolist() == pytest.approx(objectives, rel=1e-10)
    assert len(set(objectives)) == 3
    winner = min(range(3), key=objectives.__getitem__)
    torch.testing.assert_close(search.result(together)[0], images[winner])
    assert search.result(together)[2] == pytest.approx(min(objectives))


EVERYTHING = {
    "batch_norm_weight": 1.0,
    "total_variation_weight": 0.01,
    "total_variation_scale": "distance",
    "l2_weight": 0.01,
    "prior_weight": 0.1,
    "group_weight": 0.5,
}


@pytest.mark.parametrize(
    "changes",
    [
        EVERYTHING,
        {"batch_norm_weight": 1.0, "batch_norm_distance": "absolute", "total_variation": "double-opponents"},
        {"objective": "layer-cosine"},
        {"labels": "joint"},
    ],
    ids=str,
)
def test_restarts_together_take_the_steps_of_one_after_the_other(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    observation = observe_small(images=2, dtype=torch.float64)
    settings = AttackSettings(start_jitter=0.3, restarts=5, iterations=4, **changes)
    labels = None if settings.labels == "joint" else observation.client.labels

    def run(most: int) -> SearchState:
        monkeypatch.setattr(engine, "MOST_TOGETHER", most)
        search = Search(observation, settings, labels, seed=0)
        assert search.objective.together == most
        return finish(search)

    one, together = run(1), run(3)  # 5 are 3 and 2
    torch.testing.assert_close(together.variables, one.variables, rtol=0, atol=1e-10)
    torch.testing.assert_close(together.best_objective, one.best_objective, rtol=1e-10, atol=0)
    assert together.curves.keys() == one.curves.keys()
    for name, values in together.curves.items():
        assert values == pytest.approx(one.curves[name], rel=1e-8), name


def test_the_group_term_pulls_restarts_together() -> None:
    def spread(weight: float) -> float:
        settings = {"start": "noise", "restarts": 3, "iterations": 25, "group_weight": weight, "step_size": 0.05}
        return float(finish(searching(observe_small(images=1), **settings)).variables.var(dim=0).mean())

    assert spread(100.0) < 0.2 * spread(0.0)


def poison(monkeypatch: pytest.MonkeyPatch, *calls: int) -> None:
    """Make the objective of these evaluations, counted from 0, not a number."""
    evaluate, count = Objective.evaluate_all, iter(range(10**6))

    def poisoned(self: Objective, *args: Any, **given: Any) -> Evaluation:
        found = evaluate(self, *args, **given)
        factors = [math.nan if next(count) in calls else 1 for _ in found.objective]
        return replace(found, objective=found.objective * torch.tensor(factors))

    monkeypatch.setattr(Objective, "evaluate_all", poisoned)


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_a_restart_that_diverges_is_dropped_and_noted_while_others_go_on(
    monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    settings = {"start_jitter": 0.3, "restarts": 2, "iterations": 5, "optimizer": optimizer, "bounds": "none"}
    search = searching(observe_small(images=1, dtype=torch.float64), **settings)
    undisturbed = finish(search, alone(search.start(), 1))
    poison(monkeypatch, 2)  # second iteration, first restart
    state = finish(search)
    assert state.alive.tolist() == [False, True]
    assert state.notes == ("Diverged: not finite at iteration 2 (restart 0).",)
    assert state.stopped == "finished"
    assert state.iteration == 5
    torch.testing.assert_close(state.variables[1], undisturbed.variables[0])
    assert float(state.best_objective[1]) == pytest.approx(float(undisturbed.best_objective[0]))
    assert all(map(math.isfinite, state.curves["objective"]))


def test_the_consensus_is_of_the_restarts_that_live(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once one of two is dropped, the other's distance to the mean is 0."""
    search = searching(observe_small(images=1), start="noise", restarts=2, iterations=4, group_weight=1.0)
    poison(monkeypatch, 2)
    distances = finish(search).curves["group_distance"]
    assert distances[0] > 0
    assert distances[2:] == [0, 0]


def test_a_search_whose_restarts_all_diverged_ends_with_the_best_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    search = searching(observe_small(images=1), start="noise", restarts=2, iterations=9)
    poison(monkeypatch, 3, 4)
    state = finish(search)
    assert state.stopped == "diverged"
    assert state.iteration == 3
    assert [note.split(":")[0] for note in state.notes] == ["Diverged", "Diverged"]
    images, _, objective = search.result(state)
    assert images.isfinite().all()
    assert math.isfinite(objective)


def test_a_search_that_never_was_finite_returns_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    search = searching(observe_small(images=1), iterations=9)
    poison(monkeypatch, 0)
    state = finish(search)
    assert state.stopped == "diverged"
    assert torch.equal(search.result(state)[0], search.observation.client.prior)
    assert search.result(state)[2] == math.inf


def test_no_progress_ends_the_search_early() -> None:
    search = searching(observe_small(images=1), step_size=1e-6, tolerance=0.01, patience=5, iterations=50)
    state = finish(search)
    assert (state.stopped, state.iteration) == ("converged", 10)  # asked at 5 for a reference, at 10 for progress


def test_progress_or_no_tolerance_goes_on() -> None:
    for settings in ({"tolerance": 1e-9, "step_size": 0.02}, {"tolerance": 0.0, "step_size": 1e-6}):
        state = finish(searching(observe_small(images=1), patience=5, iterations=15, **settings))
        assert (state.stopped, state.iteration) == ("finished", 15)


def test_keeps_the_best_iterate_by_its_own_objective() -> None:
    search = searching(observe_small(images=1), step_size=5.0, iterations=4, schedule="constant")
    state, reached = search.start(), []
    while not state.stopped:
        state = search.advance(state)
        reached.append(state.reached)
    assert search.result(state)[2] == min(reached) < reached[-1]


def test_smoothing_leads_past_local_minima(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a valley with ripples, whose least point is known: all pixels 0.8, at a distance that noise leaves of it."""

    def rippled(_self: Objective, images: Tensor, *_args: Any, **_given: Any) -> Evaluation:
        gap = images.flatten(1) - 0.8
        values = 1 + (gap.square() + 0.02 * (1 - (60 * gap).cos())).mean(dim=1).double()
        return Evaluation(values, {"update_distance": values.detach()}, {})

    monkeypatch.setattr(Objective, "evaluate_all", rippled)

    def error(smoothing: float) -> float:
        settings = {"iterations": 400, "step_size": 0.01, "smoothing": smoothing}
        search = searching(observe_small(images=1), **settings)
        return float((search.result(finish(search))[0] - 0.8).abs().mean())

    assert error(0.1) < 0.3 * error(0.0)


def test_the_noise_of_smoothing_falls_with_steps_and_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    """The start is spared; then s(1 − k/K) times the least distance so far over that of the start, for each restart."""
    search = searching(observe_small(images=2), smoothing=0.2, iterations=5, restarts=2, start="noise")
    distances = torch.tensor([[2.0, 1.0, 1.5, 0.5, 0.1], [1.0, 1.0, 2.0, 0.25, 0.1]], dtype=torch.float64)
    state, deviations = search.start(), list[list[float]]()

    def given(_self: Objective, images: Tensor, *_args: Any, **_given: Any) -> Evaluation:
        plain = search.variables.candidates(state.variables)[0]
        deviations.append((images - plain).detach().flatten(1).std(dim=1).tolist())
        values = distances[:, len(deviations) - 1]
        return Evaluation(values + 0 * images.sum(), {"update_distance": values}, {})

    monkeypatch.setattr(Objective, "evaluate_all", given)
    while not state.stopped:
        state = search.advance(state)
    expected = [[0, 0], [0.16, 0.16], [0.06, 0.12], [0.04, 0.08], [0.01, 0.01]]
    for found, wanted in zip(deviations, expected, strict=True):
        assert found == pytest.approx(wanted, rel=0.25)  # of 128 values each


def test_curves_are_thinned_from_first_to_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leakpipe.attacks.search.CURVE_POINTS", 5)
    curves = finish(searching(observe_small(images=1), iterations=22)).curves
    assert curves.keys() == {"iteration", "objective", "update_distance", "total_variation"}
    assert curves["iteration"] == [1, 4, 8, 12, 16, 20, 22]
    assert {len(curve) for curve in curves.values()} == {7}


def test_starts_are_drawn_anew_for_every_restart() -> None:
    observation = observe_small(images=2)

    def starts(**settings: Any) -> torch.Tensor:
        return start_candidates(observation, AttackSettings(**settings), torch.Generator().manual_seed(0))

    for kind in ("noise", "pattern", "prior"):
        drawn = starts(start=kind, restarts=3)
        assert drawn.shape == (3, 2, 1, 8, 8)
        assert 0 <= drawn.min() < drawn.max() <= 1
        assert len({candidate.numpy().tobytes() for candidate in drawn.flatten(0, 1)}) == 6
    tiled = starts(start="pattern")
    assert torch.equal(tiled[..., :4, :4], tiled[..., 4:, 4:])
    assert torch.equal(starts(start="prior", start_jitter=0.0)[0], observation.client.prior)
    alone_at_prior = start_candidates(observe_small(images=1), AttackSettings(), torch.Generator())
    assert torch.equal(alone_at_prior, torch.full((1, 1, 1, 8, 8), 0.5))


@pytest.mark.parametrize("bounds", ["clamp", "sigmoid"])
def test_candidates_searched_as_coefficients_are_images_all_the_same(bounds: str) -> None:
    """Starts and clamped steps survive the change of variables."""
    search = searching(observe_small(images=2), spectrum_decay=0.7, bounds=bounds, step_size=0.5, iterations=3)
    state = search.start()
    size = math.prod(search.shape)
    torch.testing.assert_close(search.variables.candidates(state.variables)[0][0].flatten(), state.best[0, :size])
    for _ in range(3):
        state = search.advance(state)
        images = search.variables.candidates(state.variables)[0][0]
        assert images.max() - images.min() > 0.2
        assert -1e-5 <= images.min() <= images.max() <= 1 + 1e-5


def test_averages_change_no_step_and_are_kept_where_they_are_better() -> None:
    """Of constant steps, which scatter; the average of the first ten is evaluated at the tenth."""
    given: dict[str, Any] = {"schedule": "constant", "iterations": 30, "restarts": 2, "start": "noise"}
    given |= {"spectrum_decay": 0.5, "surrogate_slope": 4.0, "batch_norm_weight": 1.0}
    plain, averaging = (searching(observe_small(images=1), averaging=share, **given) for share in (0.0, 0.8))
    states, path, kept = [plain.start(), averaging.start()], [], False
    for iteration in range(1, 31):
        states = [search.advance(state) for search, state in zip((plain, averaging), states, strict=True)]
        path.append(states[0].variables)
        assert torch.equal(states[1].variables, states[0].variables)
        assert (states[1].best_objective <= states[0].best_objective).all()
        if iteration == 10:
            weights = 0.8 ** torch.arange(9.0, -1, -1)
            mean = (weights[:, None, None] * torch.stack(path)).sum(dim=0) / weights.sum()
            images = averaging.variables.candidates(mean)[0].clamp(0, 1).flatten(1)
            taken = states[1].best_objective < states[0].best_objective
            torch.testing.assert_close(states[1].best[taken], images[taken])
            kept = bool(taken.any())
    assert kept
