"""Batch normalisation in training mode as a function that also returns its statistics, and is quick to differentiate.

torch differentiates its own batch normalisation twice by a chain of two dozen elementwise operations, and the
statistics cost one more pass over the input each way. Here all derivatives go through torch's backward kernel.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def normalize_batch(
    values: Tensor, weight: Tensor | None, bias: Tensor | None, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns γx̂ + β with x̂ = (x − μ)/√(σ² + ε), μ and the UNBIASED σ², of the values of each channel.

    Output and statistics can be differentiated, the output twice.

    Args:
        values: Shape (batch, channels, …), of single or double precision, with two values per channel at least.
        weight: γ, shape (channels,); None is 1.
        bias: β; None is 0.
        epsilon: ε.
    """
    return _Normalize.apply(values, weight, bias, epsilon)  # type: ignore[no-any-return]


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, weight: Tensor | None, bias: Tensor | None, epsilon: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        # At momentum 1 the running statistics become the batch's own, its variance unbiased.
        mean, variance = values.new_zeros(2, values.shape[1]).unbind()
        output, _, inverse = torch.native_batch_norm(values, weight, bias, mean, variance, True, 1.0, epsilon)
        mean, variance = mean.clone(), variance.clone()
        ctx.save_for_backward(values, weight, mean, inverse)
        ctx.epsilon = epsilon
        ctx.set_materialize_grads(False)
        return output, mean, variance

    @staticmethod
    def backward(ctx: Any, delta: Tensor | None, in_mean: Tensor | None, in_variance: Tensor | None) -> Any:
        values, weight, mean, inverse = ctx.saved_tensors
        found: list[Tensor | None] = [None, None, None]
        if delta is not None:
            found = [*_Differentiate.apply(delta, values, weight, mean, inverse, ctx.epsilon)]
        count = values.numel() // len(mean)
        parts = [found[0]]
        if in_mean is not None:
            parts.append(_channels(in_mean / count, values).expand_as(values))
        if in_variance is not None:
            parts.append((values - _channels(mean, values)) * _channels(in_variance * (2 / (count - 1)), values))
        given = [part for part in parts if part is not None]
        wanted = ctx.needs_input_grad
        in_values = sum(given[1:], given[0]) if given else None
        return in_values, found[1] if wanted[1] else None, found[2] if wanted[2] else None, None


class _Differentiate(torch.autograd.Function):
    """The backward pass: γ·P(δ)/σ with P(q) = q − mean(q) − x̂·mean(x̂q), Σ x̂δ and Σ δ."""

    @staticmethod
    def forward(
        ctx: Any,
        delta: Tensor,
        values: Tensor,
        weight: Tensor | None,
        mean: Tensor,
        inverse: Tensor,
        epsilon: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        found = _project(delta, values, weight, mean, inverse, epsilon)
        ctx.save_for_backward(delta, values, weight, mean, inverse, found[1])
        ctx.epsilon = epsilon
        ctx.set_materialize_grads(False)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, moved: Tensor | None, along: Tensor | None, shift: Tensor | None) -> Any:
        delta, values, weight, mean, inverse, read = ctx.saved_tensors
        scale = torch.ones_like(mean) if weight is None else weight
        nothing = torch.zeros_like(mean)
        along, shift = (nothing if value is None else value for value in (along, shift))
        turned, in_weight, through = torch.zeros_like(values), None, delta * _channels(along, values)
        slope = nothing
        if moved is not None:
            shrink = inverse / (values.numel() // len(mean))
            turned, moved_sum, _ = _project(moved, values, None, mean, inverse, ctx.epsilon)
            in_weight = (turned * delta).sum(dim=(0, *range(2, delta.dim())))
            slope = -scale * in_weight * shrink * inverse
            through = delta * _channels(along - scale * moved_sum * shrink, values)
            through.addcmul_(moved, _channels(-scale * read * shrink, values))
        in_delta = torch.addcmul(_channels(shift - along * inverse * mean, values), turned, _channels(scale, values))
        in_delta.addcmul_(values, _channels(along * inverse, values))
        in_values = _project(through, values, None, mean, inverse, ctx.epsilon)[0]
        in_values.addcmul_(values, _channels(slope, values)).sub_(_channels(slope * mean, values))
        return in_delta, in_values, None if weight is None else in_weight, None, None, None


def _project(
    along: Tensor, values: Tensor, weight: Tensor | None, mean: Tensor, inverse: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """weight·P(along)/σ, Σ x̂·along and Σ along."""
    return torch.ops.aten.native_batch_norm_backward(  # type: ignore[no-any-return]
        along, values, weight, None, None, mean, inverse, True, epsilon, [True, True, True]
    )


def _channels(of_each: Tensor, like: Tensor) -> Tensor:
    return of_each.view(1, -1, *[1] * (like.dim() - 2))
