"""Optimisers against torch's over several steps; step sizes against closed forms."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from leakpipe.attacks.optimizers import initial_optimizer_state, step_size, take_step
from leakpipe.params.attack_settings import AttackSettings

Slope = Callable[[torch.Tensor, int], torch.Tensor]


def descend(settings: AttackSettings, values: torch.Tensor, slope: Slope, steps: int) -> torch.Tensor:
    """Positions after every step, of shape (steps, restarts, variables); `slope` is asked row by row."""
    slots, path = initial_optimizer_state(settings, values), []
    for iteration in range(1, steps + 1):
        gradient = torch.stack([slope(row, iteration) for row in values])
        places = {"iteration": iteration, "iterations": settings.iterations, "since_start": iteration}
        values, slots = take_step(settings, values, gradient, slots, **places)
        path.append(values)
    return torch.stack(path)


def descend_with_torch(optimizer: Callable[..., Any], start: torch.Tensor, slope: Slope, steps: int) -> torch.Tensor:
    values = start.clone().requires_grad_()
    reference, path = optimizer([values]), []
    for iteration in range(1, steps + 1):

        def closure(iteration: int = iteration) -> float:
            values.grad = slope(values.detach(), iteration)
            return 0.0

        reference.step(closure)
        path.append(values.detach().clone())
    return torch.stack(path)


def rosenbrock_slope(x: torch.Tensor, _iteration: int = 0) -> torch.Tensor:
    x = x.detach().requires_grad_()
    value = (100 * (x[1:] - x[:-1].square()).square() + (1 - x[:-1]).square()).sum()
    return torch.autograd.grad(value, x)[0]


def quadratic_slope(x: torch.Tensor, _iteration: int = 0) -> torch.Tensor:
    return torch.tensor([1.0, 3.0, 10.0, 30.0], dtype=x.dtype) * (x - 0.5)


def noisy_slope(x: torch.Tensor, iteration: int) -> torch.Tensor:
    return quadratic_slope(x) + torch.randn(4, generator=torch.Generator().manual_seed(iteration), dtype=x.dtype)


START = torch.tensor([[-1.2, 1.0, -0.7, 0.4], [0.3, -0.2, 0.9, 2.0]], dtype=torch.float64)


@pytest.mark.parametrize("optimizer", ["adam", "signed-adam", "adamw"])
@pytest.mark.parametrize("slope", [noisy_slope, rosenbrock_slope])
def test_adam_equals_torchs(optimizer: str, slope: Slope) -> None:
    settings = AttackSettings(optimizer=optimizer, step_size=0.1, weight_decay=0.3, schedule="constant")  # type: ignore[arg-type]

    def theirs(values: list[torch.Tensor]) -> torch.optim.Optimizer:
        if optimizer == "adamw":
            return torch.optim.AdamW(values, lr=0.1, weight_decay=0.3)
        return torch.optim.Adam(values, lr=0.1)

    def seen(x: torch.Tensor, iteration: int) -> torch.Tensor:
        return slope(x, iteration).sign() if optimizer == "signed-adam" else slope(x, iteration)

    found = descend(settings, START[:1], slope, 10)
    torch.testing.assert_close(found[:, 0], descend_with_torch(theirs, START[0], seen, 10), rtol=1e-10, atol=1e-12)


def test_adam_with_a_cosine_equals_torchs() -> None:
    settings = AttackSettings(optimizer="adam", step_size=0.1, iterations=10, schedule="cosine")
    values = START[0].clone().requires_grad_()
    reference = torch.optim.Adam([values], lr=0.1)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(reference, 10)
    for iteration in range(1, 11):
        values.grad = noisy_slope(values.detach(), iteration)
        reference.step()
        decay.step()
    found = descend(settings, START[:1], noisy_slope, 10)[-1, 0]
    torch.testing.assert_close(found, values.detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("slope", [quadratic_slope, rosenbrock_slope])
@pytest.mark.parametrize("size", [1.0, 0.4])
def test_lbfgs_equals_torchs(slope: Slope, size: float) -> None:
    """`max_iter=1` takes one step a call and keeps the history from call to call."""
    settings = AttackSettings(optimizer="lbfgs", bounds="none", step_size=size, schedule="constant")

    def theirs(values: list[torch.Tensor]) -> torch.optim.Optimizer:
        return torch.optim.LBFGS(values, lr=size, max_iter=1, tolerance_grad=0, tolerance_change=0)

    expected = descend_with_torch(theirs, START[0], slope, 15)
    assert expected.isfinite().all()
    found = descend(settings, START[:1], slope, 15)[:, 0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)  # rounding grows from step to step


def test_lbfgs_forgets_pairs_as_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leakpipe.attacks.optimizers.HISTORY", 3)
    settings = AttackSettings(optimizer="lbfgs", bounds="none", step_size=0.3, schedule="constant")

    def theirs(values: list[torch.Tensor]) -> torch.optim.Optimizer:
        return torch.optim.LBFGS(values, lr=0.3, max_iter=1, history_size=3, tolerance_grad=0, tolerance_change=0)

    found = descend(settings, START[:1], quadratic_slope, 12)[:, 0]
    torch.testing.assert_close(found, descend_with_torch(theirs, START[0], quadratic_slope, 12), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("optimizer", ["adam", "signed-adam", "soft-signed-adam", "adamw", "lbfgs"])
def test_restarts_move_independently(optimizer: str) -> None:
    settings = AttackSettings(optimizer=optimizer, bounds="none", step_size=0.2, iterations=20)  # type: ignore[arg-type]
    both = descend(settings, START, rosenbrock_slope, 8)
    for restart in (0, 1):
        alone = descend(settings, START[restart : restart + 1], rosenbrock_slope, 8)
        torch.testing.assert_close(both[:, restart], alone[:, 0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("optimizer", ["adam", "signed-adam", "soft-signed-adam", "adamw", "lbfgs"])
def test_a_zero_gradient_moves_nothing(optimizer: str) -> None:
    settings = AttackSettings(optimizer=optimizer, bounds="none", step_size=0.2)  # type: ignore[arg-type]
    path = descend(settings, START, lambda row, _: torch.zeros_like(row), 4)
    assert torch.equal(path[-1], START)


def test_soft_sign_goes_from_tanh_to_the_gradient_itself() -> None:
    """Adam of tanh(s·g)/s, where s falls from 1 to 1/iterations."""
    steps = 10
    settings = AttackSettings(optimizer="soft-signed-adam", step_size=0.1, iterations=steps, schedule="constant")

    def softened(x: torch.Tensor, iteration: int) -> torch.Tensor:
        share = 1 - (iteration - 1) / steps
        slopes = noisy_slope(x, iteration).tolist()
        return torch.tensor([math.tanh(share * slope) / share for slope in slopes], dtype=x.dtype)

    found = descend(settings, START[:1], noisy_slope, steps)[:, 0]
    expected = descend_with_torch(lambda values: torch.optim.Adam(values, lr=0.1), START[0], softened, steps)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def sizes(**settings: Any) -> list[float]:
    chosen = AttackSettings(step_size=0.5, **settings)
    return [step_size(chosen, iteration, chosen.iterations) for iteration in range(1, chosen.iterations + 1)]


def test_step_stays_constant() -> None:
    assert sizes(schedule="constant", iterations=7) == [0.5] * 7


def test_step_warms_up_linearly() -> None:
    expected = [0.125, 0.25, 0.375, 0.5, 0.5, 0.5]
    assert sizes(schedule="constant", iterations=6, warmup=4) == pytest.approx(expected)


def test_step_decays_as_a_cosine_from_full_size_towards_zero() -> None:
    found = sizes(schedule="cosine", iterations=100)
    assert found[0] == 0.5
    assert found[50] == pytest.approx(0.25)  # half way
    assert 0 < found[-1] < 0.001
    assert found == sorted(found, reverse=True)
    warm = sizes(schedule="cosine", iterations=100, warmup=10)
    assert warm[4] == pytest.approx(found[4] / 2)
    assert warm[9:] == found[9:]


def test_step_schedule_decays_at_published_milestones() -> None:
    found = sizes(schedule="steps", iterations=80)
    expected = [0.5] * 30 + [0.05] * 20 + [0.005] * 20 + [0.0005] * 10
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(("iterations", "lengths"), [(179, [179]), (180, [60, 120]), (420, [60, 120, 240])])
def test_warm_restarts_are_cosines_of_doubled_lengths(iterations: int, lengths: list[int]) -> None:
    found = sizes(schedule="warm-restarts", iterations=iterations, first_cycle=60, cycle_decay=0.7)
    cycles = [sizes(schedule="cosine", iterations=length) for length in lengths]
    expected = [0.7**place * size for place, cycle in enumerate(cycles) for size in cycle]
    assert found == pytest.approx(expected, abs=1e-9)
    assert len(lengths) > 1 or found == expected  # a short search takes the same steps, to the bit
