"""Gauss–Newton steps against dense linear algebra."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d, relu

from leakpipe.attacks.recursive.newton import Jacobian, take_newton_step

FILTERS = torch.randn(3, 1, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def pooled(variables: Tensor) -> Tensor:
    """Residuals with kinks, as those of a network are."""
    return max_pool2d(relu(conv2d(variables, FILTERS)), 2).flatten() - 0.1


def test_products_are_those_of_the_dense_jacobian() -> None:
    generator = torch.Generator().manual_seed(0)
    variables = torch.randn(1, 1, 6, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    dense = torch.autograd.functional.jacobian(pooled, variables).flatten(1).numpy()
    found = Jacobian(pooled(variables), variables)
    assert found.shape == dense.shape == (12, 36)
    assert np.allclose(found @ np.eye(36), dense)
    assert np.allclose(found.T @ np.eye(12), dense.T)


def test_one_step_solves_a_linear_problem() -> None:
    matrix = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = torch.randn(9, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = take_newton_step(
        lambda x: matrix @ x.flatten() - wanted, torch.zeros(2, 2, dtype=torch.float64), iterations=8
    )
    expected, *_ = np.linalg.lstsq(matrix.numpy(), wanted.numpy())
    assert np.allclose(found.flatten(), expected)


def test_steps_reach_the_minimum_of_a_curved_valley() -> None:
    """Rosenbrock's function, where a whole step overshoots."""
    found = torch.tensor([-1.2, 1.0], dtype=torch.float64)

    def residuals(x: Tensor) -> Tensor:
        return torch.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])

    for _ in range(30):
        after = take_newton_step(residuals, found, iterations=4)
        assert float(residuals(after).norm()) <= float(residuals(found).norm())
        found = after
    assert torch.allclose(found, torch.ones(2, dtype=torch.float64))


def test_where_nothing_is_gained_the_start_stays() -> None:
    start = torch.ones(3)
    assert take_newton_step(lambda x: x - 1, start, iterations=4) is start
    assert take_newton_step(lambda x: 1 + 0 * x, start, iterations=4) is start
