"""The null-space step: the maps that a convolution read, from the row space of its weight gradient alone.

Batch normalisation in training mode makes the gradients Δ_p before it sum to zero, so the rows of G = Σ_p Δ_p ⊗ P_p
lie in the span of the centred patches P_p − mean, and are all of it where n − 1 < min(channels out, patch length).
With V an orthonormal basis of the rows, the map X of one image solves (I − VVᵀ)(P(X) − mean P(X)) = 0, centred over its
own positions. That is a homogeneous linear system whose solutions, for a 3×3 convolution of stride 1 with zero
padding, are the mixtures of the batch's images: of one image, its map up to the scale.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor

from leakpipe.attacks.recursive.layer import Layer

ATTEMPTS = ((40, 1e-9), (120, 1e-6))  # Lanczos vectors that are kept, and tolerance of the eigenvalues
RESTARTS = 60  # of the Lanczos iterations in one attempt; 5 to 20 are usual


@dataclass(frozen=True)
class NullSpace:
    """Smallest eigenpairs of the system's normal operator.

    Attributes:
        eigenvalues: In ascending order, one more than there are images, float64.
        vectors: Maps of one image of unit length, shape (pairs, channels, height, width).
        rows: Orthonormal columns that span the rows of the gradient, shape (patch length, n − 1).
    """

    eigenvalues: Tensor
    vectors: Tensor
    rows: Tensor

    @property
    def gap(self) -> float:
        """Ratio of the eigenvalue behind the null space to the largest one inside it."""
        inside = max(float(self.eigenvalues[-2].abs()), torch.finfo(torch.float64).tiny)
        return float(self.eigenvalues[-1]) / inside


def row_space(layer: Layer) -> Tensor:
    """Returns orthonormal columns that span the rows of the gradient, shape (patch length, n − 1)."""
    matrix = layer.gradient.flatten(1)
    _, left = torch.linalg.eigh(matrix @ matrix.T)
    rows: Tensor = torch.linalg.qr(matrix.T @ left[:, -(layer.positions - 1) :])[0]
    return rows


def outside_patches(layer: Layer, rows: Tensor, features: Tensor) -> Tensor:
    """Returns (I − VVᵀ) of the patches of `features`, shape (positions, patch length)."""
    patches = layer.patches(features)
    return patches - (patches @ rows) @ rows.T


def outside_rows(layer: Layer, rows: Tensor, features: Tensor) -> Tensor:
    """Returns (I − VVᵀ) of the centred patches of `features`, shape (positions, patch length)."""
    patches = layer.patches(features)
    centred = patches - patches.mean(dim=0)
    return centred - (centred @ rows) @ rows.T


def outside_rows_back(layer: Layer, rows: Tensor, residual: Tensor) -> Tensor:
    """Returns the adjoint of `outside_rows`."""
    left = residual - (residual @ rows) @ rows.T
    return layer.gather(left - left.mean(dim=0))


def find_null_space(layer: Layer, generator: torch.Generator) -> NullSpace | None:
    """Returns the smallest eigenpairs of the normal operator, by Lanczos iterations without ever forming it.

    None where the iterations do not converge, with more vectors and a coarser tolerance either.

    Args:
        layer: With a null space (`has_null_space`), of stride 1.
        generator: Draws the start vector.
    """
    rows, pairs = row_space(layer), layer.input_shape[0] + 1
    layer = layer.of_one_image()
    device, shape = rows.device, layer.input_shape

    def multiply(vector: np.ndarray) -> np.ndarray:
        features = torch.from_numpy(vector).to(device).view(shape)
        return outside_rows_back(layer, rows, outside_rows(layer, rows, features)).flatten().cpu().numpy()

    size = int(np.prod(shape))
    operator = LinearOperator((size, size), matvec=multiply, dtype=np.float64)
    start = torch.randn(size, generator=generator, dtype=torch.float64, device="cpu").numpy()
    for kept, tolerance in ATTEMPTS:
        vectors_kept = min(max(kept, 4 * pairs), size - 1)
        try:
            values, vectors = eigsh(
                operator, k=pairs, which="SA", v0=start, ncv=vectors_kept, tol=tolerance, maxiter=RESTARTS
            )
            break
        except ArpackNoConvergence:
            continue
    else:
        return None
    order = np.argsort(values)
    columns = torch.from_numpy(np.ascontiguousarray(vectors[:, order].T)).to(device).view(pairs, *shape[1:])
    return NullSpace(torch.from_numpy(values[order]), columns, rows)


def scale_maps(layer: Layer, direction: Tensor) -> Tensor:
    """Returns the multiple of `direction` that has the known batch statistics behind the convolution.

    Its sign is that of a map that is nonnegative, as behind a ReLU; entries that are still negative are rounding and
    are left, as they tell the noise.

    Args:
        direction: The maps of the batch up to their scale.
    """
    positive = (
        direction if float(direction.clamp_min(0).square().sum()) > float(direction.square().sum()) / 2 else -direction
    )
    found = layer.convolve(positive).transpose(0, 1).flatten(1).var(dim=1, correction=0)
    scale = float((layer.variance * found).sqrt().sum() / found.sum())
    return scale * positive
