"""Distances of a candidate's simulated update from the observed one.

Every distance is a function of three numbers a tensor (`Products`). These are float64 sums: over millions of weights a
float32 cosine is off by more than attacks need (4.5e-3 was measured on 11 M weights).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from leakpipe.models.state import Tensors

TINY = 1e-12
PIECE = 1 << 16  # values that are turned into float64 at a time: they stay in the cache


def smooth_norm(values: Tensor) -> Tensor:
    """√(Σ values² + 1e-12): the L2 norm, with a gradient of 0 instead of NaN where all values are 0."""
    return (values.square().sum() + TINY).sqrt()


def of_either_sign(distance: Tensor) -> Tensor:
    """1 − |cos(angle)| from 1 − cos(angle): what is opposite counts as equal."""
    return 1 - (1 - distance).abs()


class Products(NamedTuple):
    """Products of candidates' tensors x with observed ones y, all float64 of shape (…, tensors).

    Attributes:
        inner: ⟨x, y⟩.
        squared: ‖x‖².
        gaps: ‖x − y‖²; None where it was not asked for.
    """

    inner: Tensor
    squared: Tensor
    gaps: Tensor | None

    def scaled(self, scales: Tensor) -> "Products":
        """Returns these where every tensor is multiplied with the root of its scale."""
        gaps = None if self.gaps is None else self.gaps * scales
        return Products(self.inner * scales, self.squared * scales, gaps)

    def steps(self) -> tuple[Tensor, Tensor]:
        """Returns a and b of the gradient in x, a·y + b·x, where these products are slopes of a function."""
        along_theirs, along_mine = self.inner, 2 * self.squared
        if self.gaps is not None:
            along_theirs, along_mine = along_theirs - 2 * self.gaps, along_mine + 2 * self.gaps
        return along_theirs, along_mine


def compare_tensors(candidate: Tensors, observed: Tensors, *, differs: bool) -> Products:
    """Compares tensors by name; differentiable in those of the candidate.

    Args:
        candidate: Has at least the names of `observed`, of the same shapes.
        observed: Results are in its order.
        differs: Whether ‖x − y‖² is needed.
    """
    mine = [candidate[name] for name in observed]
    inner, squared, *gaps = _Compare.apply([*observed.values()], differs, *mine)
    return Products(inner, squared, gaps[0] if differs else None)


def squared_lengths(tensors: Tensors) -> Tensor:
    """Returns the squared L2 norm of every tensor, float64 of shape (tensors,)."""
    return torch.stack([value.double().square().sum() for value in tensors.values()])


class _Compare(torch.autograd.Function):
    """The float64 copies that autograd would keep of all tensors cost more than a small network's whole step."""

    @staticmethod
    def forward(ctx: FunctionCtx, observed: list[Tensor], differs: bool, *mine: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(*observed, *mine)
        return torch.stack([_products(x, y, differs=differs) for x, y in zip(mine, observed, strict=True)]).unbind(1)

    @staticmethod
    def backward(ctx: FunctionCtx, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        tensors: Sequence[Tensor] = ctx.saved_tensors  # type: ignore[attr-defined]
        half = len(tensors) // 2
        steps = zip(*(along.tolist() for along in Products(*slopes, *[None] * (3 - len(slopes))).steps()), strict=True)
        found = [
            torch.mul(mine, along_mine).add_(theirs, alpha=along_theirs)
            for theirs, mine, (along_theirs, along_mine) in zip(tensors[:half], tensors[half:], steps, strict=True)
        ]
        return None, None, *found


def _products(mine: Tensor, theirs: Tensor, *, differs: bool) -> Tensor:
    """⟨x, y⟩, ‖x‖² and perhaps ‖x − y‖² of two tensors, float64."""
    found = []
    if mine.dim() == 4 and mine.is_contiguous(memory_format=torch.channels_last):
        mine, theirs = mine.permute(0, 2, 3, 1), theirs.permute(0, 2, 3, 1)
    for x, y in zip(_pieces(mine), _pieces(theirs), strict=True):
        one, other = x.double(), y.double()
        found += [one.dot(other), one.dot(one)]
        if differs:
            gap = one - other
            found.append(gap.dot(gap))
    return torch.stack(found).view(-1, 3 if differs else 2).sum(dim=0)


def _pieces(values: Tensor) -> Sequence[Tensor]:
    row = values.reshape(-1)
    return row.split(PIECE) if len(row) > PIECE else (row,)


def cosine_distance(products: Products, theirs: Tensor) -> Tensor:
    """1 − cos(angle) between the two, all tensors taken as one long vector each (Geiping 2020).

    From 0 (same direction) to 2 (opposite). A zero vector has no direction: callers leave the term out when
    the observed update is zero; a zero candidate gives distance 1.

    Args:
        products: Of candidate and observed.
        theirs: Squared L2 norms of the observed tensors, float64 of shape (tensors,).

    Returns:
        Float64 of shape (…).
    """
    return _one_minus_cosine(products.inner.sum(dim=-1), products.squared.sum(dim=-1), theirs.sum())


def layer_cosine_distance(products: Products, theirs: Tensor) -> Tensor:
    """Mean over tensors of 1 − cos(angle), from 0 to 2; tensors whose observed value is zero are left out."""
    return _one_minus_cosine(products.inner, products.squared, theirs)[..., theirs > 0].mean(dim=-1)


def squared_distance(products: Products, theirs: Tensor) -> Tensor:  # noqa: ARG001 as the others
    """Squared L2 norm of the difference (Zhu 2019), at least 0."""
    return _gaps(products).sum(dim=-1)


def layer_norms_distance(products: Products, theirs: Tensor) -> Tensor:  # noqa: ARG001 as the others
    """Sum over tensors of the L2 norm of the difference (Yin 2021; Hatamizadeh 2023), at least 0."""
    return (_gaps(products) + TINY).sqrt().sum(dim=-1)


def relative_squared_distance(products: Products, theirs: Tensor) -> Tensor:
    """Mean over tensors of ‖candidate − observed‖² / ‖observed‖²; tensors observed as zero are left out."""
    seen = theirs > 0
    return (_gaps(products)[..., seen] / theirs[seen]).mean(dim=-1)


def _gaps(products: Products) -> Tensor:
    assert products.gaps is not None  # objectives outside of `WITHOUT_DIFFERENCE` ask for them
    return products.gaps


DISTANCES: dict[str, Callable[[Products, Tensor], Tensor]] = {
    "cosine": cosine_distance,
    "layer-cosine": layer_cosine_distance,
    "l2": squared_distance,
    "layer-norms": layer_norms_distance,
    "relative-l2": relative_squared_distance,
}
WITHOUT_DIFFERENCE = ("cosine", "layer-cosine")  # they need no ‖x − y‖², and no length of x


def _one_minus_cosine(inner: Tensor, mine: Tensor, theirs: Tensor) -> Tensor:
    """From the inner product and the squared lengths."""
    squared = mine * theirs
    has_direction = squared > 0  # chosen twice: a branch not taken still passes its gradient's NaN on
    norms = torch.where(has_direction, squared, 1.0).sqrt()
    return 1 - torch.where(has_direction, inner / norms, 0.0)
