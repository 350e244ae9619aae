"""A block's input by linear least squares, from its output, its inner map and the gradient of its first convolution."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, lsmr
from torch import Tensor

from leakpipe.attacks.recursive.layer import Layer, by_channel
from leakpipe.attacks.recursive.nullspace import outside_rows, outside_rows_back, row_space

ITERATIONS = 400
TOLERANCE, ROUNDED_TOLERANCE = 1e-9, 3e-5  # of LSMR, and where rounding is no small part of the equations
Shape = tuple[int, int, int, int]


@dataclass(frozen=True)
class Equations:
    """Linear equations `forward(map) = target`; `back` is the adjoint of `forward`."""

    forward: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor]
    target: Tensor


def convolution_equations(layer: Layer, normalised: Tensor, known: Tensor) -> Equations:
    """Returns: the convolution's output is as it is known, in deviations of the batch.

    Args:
        layer: That reads the unknown map.
        normalised: ẑ.
        known: Where, of 0 and 1, same shape.
    """
    weights = known / by_channel(layer.deviation)
    target = known * normalised + weights * by_channel(layer.mean)
    return Equations(
        lambda features: layer.convolve(features) * weights, lambda value: layer.convolve_back(value * weights), target
    )


def null_space_equations(layer: Layer) -> Equations:
    """Returns: the centred patches lie in the rows of the gradient."""
    rows = row_space(layer)
    return Equations(
        lambda features: outside_rows(layer, rows, features),
        lambda residual: outside_rows_back(layer, rows, residual),
        rows.new_zeros(layer.positions, len(rows)),
    )


def gradient_equations(layer: Layer, before: Tensor, trusted: Tensor) -> Equations:
    """Returns: the weight's gradient is Σ_p Δ_p ⊗ P_p, in units that make it comparable with a convolution's output.

    Args:
        layer: That reads the unknown map.
        before: Δ.
        trusted: Weight of each channel out, shape (channels out,).
    """
    unit = before.square().sum(dim=(0, 2, 3)).mean().sqrt().clamp_min(1e-30)
    weights, matrix = trusted[:, None] / unit, layer.by_position(before).T
    return Equations(
        lambda features: weights * (matrix @ layer.patches(features)),
        lambda residual: layer.gather(matrix.T @ (weights * residual)),
        layer.gradient.flatten(1) * weights,
    )


def shortcut_equations(stride: int, shape: Shape, value: Tensor, known: Tensor) -> Equations:
    """Returns: a shortcut without parameters gave `value`, which keeps every `stride`-th pixel and adds channels of 0.

    Args:
        stride: Of the shortcut.
        shape: Of the unknown map.
        value: Shape of the block's output.
        known: Where, of 0 and 1, same shape.
    """
    channels = shape[1]
    mask = known[:, :channels]

    def back(residual: Tensor) -> Tensor:
        full = residual.new_zeros(shape)
        full[:, :, ::stride, ::stride] = residual * mask
        return full

    return Equations(lambda features: features[:, :, ::stride, ::stride] * mask, back, value[:, :channels] * mask)


def count_equations(readers: Sequence[Layer], known: Sequence[Tensor]) -> int:
    """Returns how many equations there are for a map: as many as units that are known, and of weight gradients.

    Args:
        readers: Layers that read the map.
        known: Where what they give is known, of 0 and 1.
    """
    gradients = sum(layer.gradient.numel() for layer in readers)
    outside = sum(
        layer.positions * (layer.weight[0].numel() - layer.positions + 1) for layer in readers if layer.has_null_space
    )
    return gradients + outside + sum(int(each.sum()) for each in known)


def solve_map(
    shape: Shape,
    equations: list[Equations],
    start: Tensor | None = None,
    *,
    iterations: int = ITERATIONS,
    tolerance: float = TOLERANCE,
) -> tuple[Tensor, float]:
    """Returns the least-squares solution of all equations together, and the relative residual, by LSMR.

    The residual is infinite where all targets are 0, which is when nothing is known.

    Args:
        shape: Of the unknown map.
        equations: At least one kind.
        start: Where the iterations begin; zeros without one. What no equation tells stays as it is there.
        iterations: Of LSMR, at most.
        tolerance: Of LSMR, relative.
    """
    sizes = [each.target.numel() for each in equations]
    unknowns, device = int(np.prod(shape)), equations[0].target.device

    def forward(vector: np.ndarray) -> np.ndarray:
        features = torch.from_numpy(np.ascontiguousarray(vector)).to(device).view(shape)
        return torch.cat([each.forward(features).flatten() for each in equations]).cpu().numpy()

    def back(vector: np.ndarray) -> np.ndarray:
        parts = torch.from_numpy(np.ascontiguousarray(vector)).to(device).split(sizes)
        pulled = [each.back(part.view(each.target.shape)) for each, part in zip(equations, parts, strict=True)]
        return torch.stack(pulled).sum(dim=0).flatten().cpu().numpy()

    operator = LinearOperator((sum(sizes), unknowns), matvec=forward, rmatvec=back, dtype=np.float64)
    target = torch.cat([each.target.flatten() for each in equations]).cpu().numpy()
    first = None if start is None else start.flatten().cpu().numpy()
    solution = lsmr(operator, target, atol=tolerance, btol=tolerance, maxiter=iterations, x0=first)
    size = float(np.linalg.norm(target))
    return torch.from_numpy(solution[0]).to(device).view(shape), float(solution[3]) / size if size > 0 else math.inf
