"""Clients' optimisers as pure, differentiable functions: tensors in, tensors out, nothing in place.

All of them step by W ← W − η·d. `direction` returns d, which does not depend on η; the state that it takes and returns
is all that torch's optimisers keep.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from leakpipe.models.state import Tensors
from leakpipe.params.training import AdamParams, AdamWParams, ClippingParams, OptimizerParams, ScheduleParams, SgdParams

CLIPPING_EPSILON = 1e-6  # torch adds it to the norm


@dataclass(frozen=True)
class OptimizerState:
    """The optimiser's memory of earlier steps.

    Attributes:
        steps: How many there were.
        first: The momentum, or Adam's first moment, by parameter name; empty before the first step.
        second: Adam's second moment; empty for other optimisers.
    """

    steps: int = 0
    first: Tensors = field(default_factory=dict)
    second: Tensors = field(default_factory=dict)


def is_adaptive(optimizer: OptimizerParams) -> bool:
    """Returns whether an optimiser divides gradients by their own size, as Adam and AdamW do."""
    return not isinstance(optimizer, SgdParams)


def direction(
    optimizer: OptimizerParams,
    weights: Tensors,
    gradients: Tensors,
    state: OptimizerState,
    *,
    softening: float = 0.0,
) -> tuple[Tensors, OptimizerState]:
    """Returns the direction d of one step, and the optimiser's state after it.

    Differentiable in all tensors. Where a second moment is 0, its root is given the slope 0: the direction is then
    linear in the first moment with the slope 1/ε.

    Args:
        optimizer: Which one.
        weights: Where the step starts; weight decay pulls them towards 0.
        gradients: Of the same names, after clipping.
        state: Of the step before; `OptimizerState()` is a fresh one.
        softening: What attackers add to Adam's ε, as a multiple of the root mean square, over each tensor, of the root
            of the second moment. Adam's first direction g/(|g| + ε) is nearly a sign, whose slope is nearly 0.
    """
    if optimizer.weight_decay and not isinstance(optimizer, AdamWParams):
        gradients = _add(gradients, weights, optimizer.weight_decay)
    if isinstance(optimizer, SgdParams):
        return _sgd(optimizer, gradients, state)
    found, state = _adam(optimizer, gradients, state, softening)
    if isinstance(optimizer, AdamWParams) and optimizer.weight_decay:
        found = _add(found, weights, optimizer.weight_decay)
    return found, state


def _add(tensors: Tensors, others: Tensors, factor: float) -> Tensors:
    return {name: value.add(others[name], alpha=factor) for name, value in tensors.items()}


def _sgd(optimizer: SgdParams, gradients: Tensors, state: OptimizerState) -> tuple[Tensors, OptimizerState]:
    if not optimizer.momentum:
        return gradients, state
    momentum = gradients  # torch does not dampen the first
    if state.first:
        if optimizer.dampening:
            gradients = {name: (1 - optimizer.dampening) * value for name, value in gradients.items()}
        momentum = _add(gradients, state.first, optimizer.momentum)
    found = _add(gradients, momentum, optimizer.momentum) if optimizer.nesterov else momentum
    return found, OptimizerState(state.steps + 1, momentum)


def _adam(
    optimizer: AdamParams | AdamWParams, gradients: Tensors, state: OptimizerState, softening: float
) -> tuple[Tensors, OptimizerState]:
    (decay1, decay2), steps = optimizer.betas, state.steps + 1
    first, second, found = {}, {}, {}
    share, scale = 1 - decay1**steps, math.sqrt(1 - decay2**steps)  # that the moments have of what they estimate
    for name, gradient in gradients.items():
        if state.first:
            first[name] = state.first[name].lerp(gradient, 1 - decay1)
            second[name] = (decay2 * state.second[name]).addcmul(gradient, gradient, value=1 - decay2)
        else:
            first[name], second[name] = (1 - decay1) * gradient, (1 - decay2) * gradient.square()
        root = _root(second[name]) * (share / scale)
        soft = softening * root.detach().square().mean().sqrt() if softening else 0.0
        found[name] = first[name] / (root + (share * optimizer.eps + soft))
    return found, OptimizerState(steps, first, second)


def _root(squares: Tensor) -> Tensor:
    """Returns √squares, with the slope 0 instead of infinity at 0."""
    if not squares.requires_grad:
        return squares.sqrt()
    positive = squares > 0
    return torch.where(positive, torch.where(positive, squares, 1).sqrt(), 0)


def clip_gradients(gradients: Tensors, clipping: ClippingParams) -> Tensors:
    """Returns gradients whose values, or whose L2 norm over all of them, are at most the limit; differentiable."""
    if clipping.kind == "value":
        return {name: value.clamp(-clipping.limit, clipping.limit) for name, value in gradients.items()}
    norm = torch.stack([value.square().sum() for value in gradients.values()]).sum()
    factor = (clipping.limit / (_root(norm) + CLIPPING_EPSILON)).clamp(max=1)
    return {name: value * factor for name, value in gradients.items()}


def step_sizes(learning_rate: float, schedule: ScheduleParams, steps: int) -> Sequence[float]:
    """Returns the step size η of each optimiser step of a round."""
    return [learning_rate * _factor(schedule, step, steps) for step in range(steps)]


def _factor(schedule: ScheduleParams, step: int, steps: int) -> float:
    if schedule.kind == "linear":
        return schedule.start_factor + (schedule.end_factor - schedule.start_factor) * step / steps
    if schedule.kind == "cosine":
        return schedule.end_factor + (1 - schedule.end_factor) * (1 + math.cos(math.pi * step / steps)) / 2
    return schedule.gamma**step if schedule.kind == "exponential" else 1.0
