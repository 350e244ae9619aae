"""Nonnegative least squares for many right-hand sides at once."""

import torch
from torch import Tensor

EXCHANGES = 8  # of one call; where more are needed, the next call goes on from there


def solve_nonnegative(normal: Tensor, right: Tensor, start: Tensor | None = None) -> Tensor:
    """Returns x ≥ 0 with the least xᵀNx/2 − bᵀx for every column b, by block principal pivoting (Kim, Park 2011).

    Each column has a set of entries that may be positive. All entries that break the conditions of optimality are
    exchanged at once, which ends after a few rounds; columns that cycle end with their last solution, clamped.

    Args:
        normal: N, positive definite, shape (unknowns, unknowns).
        right: Shape (unknowns, columns).
        start: A guess of the solution, whose positive entries are the first set.
    """
    solution = (torch.linalg.solve(normal, right) if start is None else start).T.clone()
    free = solution > 0
    identity = torch.eye(len(normal), dtype=normal.dtype, device=normal.device)
    tolerance = 1e-12 * float(right.abs().max())
    done = solution.new_zeros(len(solution), dtype=torch.bool)
    for _ in range(EXCHANGES):
        todo = (~done).nonzero().flatten()
        for part in todo.split(16):  # what is solved at once takes memory
            mask = free[part].to(normal.dtype)
            restricted = mask[:, :, None] * normal * mask[:, None] + identity * (1 - mask)[:, :, None]
            solution[part] = torch.cholesky_solve((mask * right.T[part])[..., None], torch.linalg.cholesky(restricted))[
                ..., 0
            ]
        dual = solution @ normal - right.T
        broken = torch.where(free, solution < 0, dual < -tolerance)
        done = ~broken.any(dim=1)
        if done.all():
            break
        free = free ^ broken
    return solution.clamp_min(0).T
