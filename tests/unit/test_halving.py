"""Successive halving: parts of equal cost, and which restarts take part in each."""

from typing import Any

import pytest
import torch
from torch import Tensor

from leakpipe.attacks.halving import plan_rungs
from leakpipe.attacks.objective import Evaluation, Objective
from leakpipe.attacks.optimizers import step_size
from leakpipe.params.attack_settings import AttackSettings
from tests.unit.attacking import observe_small, searching


@pytest.mark.parametrize(
    ("restarts", "rungs", "expected"), [(8, 4, [8, 4, 2, 1]), (9, 3, [9, 3, 1]), (1, 3, [1, 1, 1])]
)
def test_all_parts_cost_the_same(restarts: int, rungs: int, expected: list[int]) -> None:
    parts = plan_rungs(AttackSettings(restarts=restarts, rungs=rungs, iterations=1500))
    assert [part.survivors for part in parts] == expected
    costs = [part.iterations * part.survivors for part in parts]
    assert costs == pytest.approx([costs[-1]] * rungs, rel=0.01)


@pytest.mark.parametrize("iterations", [1, 2, 3, 10, 11, 97])
@pytest.mark.parametrize("restarts", [1, 2, 7])
@pytest.mark.parametrize("rungs", [1, 2, 3, 10])
def test_parts_fill_the_iterations_without_gaps(iterations: int, restarts: int, rungs: int) -> None:
    parts = plan_rungs(AttackSettings(iterations=iterations, restarts=restarts, rungs=rungs))
    assert [part.start for part in parts] == [sum(part.iterations for part in parts[:k]) for k in range(len(parts))]
    assert sum(part.iterations for part in parts) == iterations
    assert min(part.iterations for part in parts) >= 1


def test_the_best_restarts_go_on_and_the_step_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here restart 2 is the best, then 1; all slopes are equal, so that Adam's steps have their full size."""
    evaluated, moved = list[int](), list[float]()

    def ranked(_self: Objective, images: Tensor, *_args: Any, **_given: Any) -> Evaluation:
        means = images.flatten(1).mean(dim=1).double()
        evaluated.append(len(images))
        return Evaluation(torch.tensor([3.0, 1, 0, 2])[(10 * means).round().long()] + means, {}, {})

    monkeypatch.setattr(Objective, "evaluate_all", ranked)
    search = searching(observe_small(images=1), restarts=4, rungs=3, iterations=14, bounds="none", step_size=1e-4)
    search.objective.engine.together = 4
    state = search.start()
    starts = 0.1 * torch.arange(4.0)[:, None].expand_as(state.variables)
    state = type(state)(**{**vars(state), "variables": starts.clone()})
    while not state.stopped:
        before, state = state.variables, search.advance(state)
        moved.append(float((before - state.variables)[2].mean()))
    assert evaluated == [4] * 2 + [2] * 4 + [1] * 8
    assert state.alive.tolist() == [False, False, True, False]
    assert (state.variables[0] - starts[0]).abs().max() < 2.1e-4  # dropped after two steps
    expected = [step_size(search.settings, place + 1, length) for length in (2, 4, 8) for place in range(length)]
    assert moved == pytest.approx(expected, rel=0.01)  # of float32 values near 0.2
