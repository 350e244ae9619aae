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


def mean_equations(layer: Layer) -> Equations:
    """Returns: the convolution's output has the mean that batch normalisation took away, in deviations of the batch."""
    weights, share = 1 / layer.deviation, 1 / layer.positions

    def back(residual: Tensor) -> Tensor:
        return layer.convolve_back(by_channel(residual * weights * share).expand(layer.output_shape))

    return Equations(
        lambda features: layer.convolve(features).mean(dim=(0, 2, 3)) * weights, back, layer.mean * weights
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


def count_equations(readers: Sequence[tuple[Layer, Tensor | None]], also: Tensor | None = None) -> int:
    """Returns how many equations there are for a map: as many as units that are known, and of weight gradients.

    Those of a 1×1 convolution are no more than there are entries at the pixels that it reads.

    Args:
        readers: Layers that read the map, and where what each gives is known, of 0 and 1; None where nothing is.
        also: Where what a shortcut without parameters gives is known, likewise.
    """
    total = 0 if also is None else int(also.sum())
    for layer, known in readers:
        patch = layer.weight[0].numel()
        found = min(layer.gradient.numel(), layer.positions * patch) + (0 if known is None else int(known.sum()))
        if layer.has_null_space:
            found += layer.positions * (patch - layer.positions + 1)
        total += min(found, layer.positions * patch) if layer.kernel == 1 else found
    return total


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
