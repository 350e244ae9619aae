"""A map refined by all of a weight's gradient, with every entry weighted by its own rounding.

A null space takes G for any matrix of rank n − 1. It is Δᵀ·P(X), which has far fewer unknowns, and its entries are not
rounded alike: float32's spacing follows the size of each weight. The map is therefore sought that explains G best, by
Gauss–Newton steps with Δ eliminated (variable projection: Golub, Pereyra 1973, as simplified by Kaufman 1975). Without
the elimination LSMR needs too many iterations.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from leakpipe.attacks.recursive.inputs import Equations, solve_map
from leakpipe.attacks.recursive.layer import PRECISION, Layer

MOST_POSITIONS = 512  # the cost grows with their square
LEAST_NOISE = (1e-3, 1e-4)  # of an entry, relative to the gradient, in the first steps: even weights converge faster
EVEN = 3e-4  # likewise, of an entry where Δ is known
STEPS, SETTLED = 6, 1e-3  # Gauss–Newton, and the relative change of the map that ends it
ITERATIONS, TOLERANCE = 150, 1e-7  # of LSMR in a step
RIDGE = 1e-12


def can_refine(layer: Layer) -> bool:
    """Returns whether the layer's gradient has noise to be weighted, and few enough positions."""
    return layer.has_null_space and layer.positions <= MOST_POSITIONS and gradient_noise(layer) > PRECISION


def gradient_noise(layer: Layer) -> float:
    """Returns the relative noise of the weight's gradient."""
    return float(entry_noise(layer, 0.0).square().mean().sqrt()) / _size(layer)


def explain_gradient(layer: Layer, features: Tensor) -> Tensor:
    """Returns Δ as `read_gradient` does, with every entry weighted by its noise, given what the layer reads."""
    weights, patches = 1 / entry_noise(layer, LEAST_NOISE[-1]), _centred(layer, features)
    return layer.as_map(_Explained(weights, patches).explain(weights * layer.gradient.flatten(1)))


def refine_map(layer: Layer, features: Tensor, known: Sequence[Equations] = ()) -> tuple[Tensor, float]:
    """Returns the map near `features` that explains the weight's gradient best, and the relative residual.

    Args:
        layer: With fewer positions than its patches have entries.
        features: A map near the solution, which is determined up to its scale.
        known: Further equations, in deviations of their noise.

    Returns:
        The map, not clamped, and the root mean square of the residual in deviations of its noise, times the relative
        noise of the gradient: about that or less where the map is right.
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
    return features, left * gradient_noise(layer)


def _size(layer: Layer) -> float:
    return float(layer.gradient.square().mean().sqrt())


def entry_noise(layer: Layer, least: float) -> Tensor:
    """Returns the deviation of each entry of the gradient, as a matrix: rounding, and what lies outside rank n − 1.

    Args:
        layer: Any.
        least: That an entry has, relative to the gradient.
    """
    gradient, rounding = layer.gradient.flatten(1), layer.weight_noise.flatten(1)
    height, width, rank = *gradient.shape, layer.positions - 1
    other = 0.0
    if layer.has_null_space:
        outside = float(torch.linalg.eigvalsh(gradient @ gradient.T)[:-rank].clamp_min(0).sum())
        other = max(0.0, outside / ((height - rank) * (width - rank)) - float(rounding.square().mean()))
    noise: Tensor = (rounding.square() + other + (least * _size(layer)) ** 2).sqrt()
    return noise


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
    gram.diagonal().add_(RIDGE * size)
    factor: Tensor = torch.linalg.cholesky(gram)
    return factor
