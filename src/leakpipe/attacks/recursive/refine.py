"""A map refined by all of a weight's gradient, with every entry weighted by its own rounding.

A null space takes G for any matrix of rank n − 1. It is Δᵀ·P(X), which has far fewer unknowns, and its entries are not
rounded alike: float32's spacing follows the size of each weight. The map is therefore sought that explains G best, by
Gauss–Newton steps with Δ eliminated (variable projection: Golub, Pereyra 1973, as simplified by Kaufman 1975). Without
the elimination LSMR needs too many iterations.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from leakpipe.attacks.recursive.inputs import Equations, solve_map
from leakpipe.attacks.recursive.layer import Layer

MOST_POSITIONS = 512  # the cost grows with their square
LEAST_NOISE = (1e-3, 1e-4)  # of an entry, relative to the gradient, in the first steps: even weights converge faster
EVEN = 3e-4  # likewise, of an entry where Δ is known
STEPS, SETTLED = 6, 1e-3  # Gauss–Newton, and the relative change of the map that ends it
ITERATIONS, TOLERANCE = 150, 1e-7  # of LSMR in a step
RIDGE = 1e-12


def can_refine(layer: Layer) -> bool:
    """Returns whether the layer's gradient has noise to be weighted, and few enough positions."""
    return layer.has_null_space and layer.positions <= MOST_POSITIONS and layer.is_rounded


def add_measured_noise(layers: Mapping[str, Layer]) -> dict[str, Layer]:
    """Returns the layers with noise that rounding does not explain, by what lies outside the row spaces of gradients.

    A gradient of n positions has rank n − 1 or less, so that further singular values are noise of whatever kind. Layers
    without a null space have the median of the others: noise that protects an update is usually one for all tensors.
    """
    measured = {name: _excess(layer) for name, layer in layers.items() if layer.has_null_space}
    usual = float(np.median(list(measured.values()))) if measured else 0.0
    found = {}
    for name, layer in layers.items():
        other = layer.weight_noise.new_tensor(measured.get(name, usual))
        found[name] = replace(
            layer,
            weight_noise=torch.hypot(layer.weight_noise, other),
            gradient_noise=torch.hypot(layer.gradient_noise, other),
        )
    return found


def _excess(layer: Layer) -> float:
    gradient = layer.gradient.flatten(1)
    height, width, rank = *gradient.shape, layer.positions - 1
    outside = float(torch.linalg.eigvalsh(gradient @ gradient.T)[:-rank].clamp_min(0).sum())
    excess = outside / ((height - rank) * (width - rank)) - float(layer.weight_noise.square().mean())
    return math.sqrt(max(0.0, excess))


def explain_gradient(layer: Layer, features: Tensor) -> Tensor:
    """Returns Δ as `read_gradient` does, with every entry weighted by its noise, given what the layer reads."""
    weights, patches = 1 / entry_noise(layer, LEAST_NOISE[-1]), _centred(layer, features)
    return layer.as_map(_Explained(weights, patches).explain(weights * layer.gradient.flatten(1)))


def refine_map(layer: Layer, features: Tensor, known: Sequence[Equations] = ()) -> tuple[Tensor, float]:
    """Returns the map near `features` that explains the weight's gradient best, and what it leaves.

    Args:
        layer: With fewer positions than its patches have entries.
        features: A map near the solution, which is determined up to its scale.
        known: Further equations, in deviations of their noise.

    Returns:
        The map, not clamped, and the root mean square of the residual in deviations of its noise: 1 or less where the
        map is right.
    """
    left = torch.inf
    for number in range(STEPS):
        least = LEAST_NOISE[min(number, len(LEAST_NOISE) - 1)]
        equations, start = _gradient_equations(layer, features, entry_noise(layer, least)), features
        features, _ = solve_map(
            layer.input_shape, [equations, *known], start, iterations=ITERATIONS, tolerance=TOLERANCE
        )
        left = float((equations.target - equations.forward(features)).square().mean().sqrt())
        if number >= len(LEAST_NOISE) - 1 and float((features - start).norm()) < SETTLED * float(start.norm()):
            break
    return features, left


def entry_noise(layer: Layer, least: float) -> Tensor:
    """Returns the deviation of each entry of the gradient, as a matrix, `least` of which is added to all of them.

    Args:
        layer: Any.
        least: Relative to the gradient.
    """
    size = float(layer.gradient.square().mean().sqrt())
    return torch.hypot(layer.weight_noise.flatten(1), layer.weight_noise.new_tensor(least * size))


class _Explained:
    """Weighted least squares for Δ, given the patches of a map.

    Args:
        weights: Of the gradient's entries, as a matrix.
        patches: Centred.
    """

    def __init__(self, weights: Tensor, patches: Tensor) -> None:
        self.weights, self.patches = weights, patches
        self.inverses = torch.cholesky_inverse(torch.stack([_factor(patches * row) for row in weights]))

    def explain(self, value: Tensor) -> Tensor:
        """Returns Δ that leaves least of `value`, which is weighted; shape (positions, channels out)."""
        right = (self.weights * value) @ self.patches.T
        return (self.inverses @ right[..., None])[..., 0].T

    def unexplained(self, value: Tensor) -> Tensor:
        """Returns what the best Δ leaves of `value`."""
        return value - self.weights * (self.explain(value).T @ self.patches)


def _gradient_equations(layer: Layer, features: Tensor, noise: Tensor) -> Equations:
    """Returns G = Δᵀ·P(X) around a map X, with the best Δ for each X, in deviations of the noise.

    Its `back` takes residuals that no Δ explains, which all are that follow from `forward` and the target.
    """
    weights = 1 / noise
    wanted, explained = weights * layer.gradient.flatten(1), _Explained(weights, _centred(layer, features))
    before = explained.explain(wanted)

    def forward(change: Tensor) -> Tensor:
        return explained.unexplained(weights * (before.T @ _centred(layer, change)))

    def back(residual: Tensor) -> Tensor:
        pulled = before @ (weights * residual)
        return layer.gather(pulled - pulled.mean(dim=0))

    return Equations(forward, back, explained.unexplained(wanted) + forward(features))


def _centred(layer: Layer, features: Tensor) -> Tensor:
    patches = layer.patches(features)
    return patches - patches.mean(dim=0)


def _factor(patches: Tensor) -> Tensor:
    """Returns the Cholesky factor of the patches' Gram matrix; the constant vector, no part of Δ, is filled in."""
    gram = patches @ patches.T
    size = gram.diagonal().mean()
    gram = gram + size / len(gram)
    gram.diagonal().add_(RIDGE * size + 1e-200)  # a map of zeros has no Δ
    factor: Tensor = torch.linalg.cholesky(gram)
    return factor
