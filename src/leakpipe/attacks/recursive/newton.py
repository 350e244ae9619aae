"""Gauss–Newton steps: they finish a least-squares search where L-BFGS hardly gains any more."""

from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, lsmr
from torch import Tensor

SHORTEST = 1 / 32  # share of a Gauss–Newton step, below which nothing is gained


class Jacobian(LinearOperator):  # type: ignore[misc]
    """J, the derivative of residuals by variables, as products with vectors.

    Jᵀu is a backward pass. It is linear in u, so that J·v is a backward pass through that one.

    Args:
        residuals: Shape (count,), computed from `variables`.
        variables: Any shape; requires gradients.
    """

    def __init__(self, residuals: Tensor, variables: Tensor) -> None:
        self.residuals, self.variables = residuals, variables
        self.weights = torch.zeros_like(residuals, requires_grad=True)
        (self.pulled,) = torch.autograd.grad(residuals, variables, self.weights, create_graph=True)
        super().__init__(dtype=np.float64, shape=(residuals.numel(), variables.numel()))

    def _matvec(self, vector: np.ndarray) -> np.ndarray:
        return _differentiate(self.pulled, self.weights, vector)

    def _rmatvec(self, vector: np.ndarray) -> np.ndarray:
        return _differentiate(self.residuals, self.variables, vector)


def _differentiate(output: Tensor, of: Tensor, vector: np.ndarray) -> np.ndarray:
    """Returns the gradient of output · vector, flat."""
    weights = torch.from_numpy(vector).to(output).view_as(output)
    (found,) = torch.autograd.grad(output, of, weights, retain_graph=True)
    flat: np.ndarray = found.flatten().double().cpu().numpy()
    return flat


def take_newton_step(residuals: Callable[[Tensor], Tensor], start: Tensor, *, iterations: int) -> Tensor:
    """Returns variables with a smaller sum of squared residuals, or `start` where the step finds none.

    The step solves the linearised problem by LSMR (Fong, Saunders 2011). Ended early, LSMR leaves alone what residuals
    hardly depend on, so that no damping is needed; a step that overshoots is halved.

    Args:
        residuals: Of variables, shape (count,).
        start: The variables, of any shape.
        iterations: Of LSMR.
    """
    variables = start.clone().requires_grad_()
    here = residuals(variables)
    wanted = -here.detach().double().cpu().numpy()
    solution, *_ = lsmr(Jacobian(here, variables), wanted, atol=0, btol=0, conlim=0, maxiter=iterations)
    direction, share, before = torch.from_numpy(solution).to(start).view_as(start), 1.0, float(here.detach().norm())
    with torch.no_grad():
        while share >= SHORTEST:
            found = start + share * direction
            if float(residuals(found).norm()) < before:
                return found
            share /= 2
    return start
