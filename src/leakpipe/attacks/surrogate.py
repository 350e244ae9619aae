"""A ReLU whose step has a slope for the attacker: same update, better direction.

A client's update contains each ReLU's derivative, a step that is 0 or 1. Differentiating the update once more
gives that step's derivative as 0, so a plain attack never learns that moving a pixel can switch a unit on or
off. Here forward and backward pass are ReLU's own, exactly; only when the BACKWARD pass is differentiated does
the derivative of a sigmoid of given slope stand in for that of the step (as surrogate gradients do for spiking
networks: Neftci, Mostafa, Zenke 2019).
"""

import copy

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from leakpipe.models.state import ModelState


class SurrogateReLU(nn.Module):
    """`torch.nn.ReLU` with a surrogate second derivative.

    Args:
        slope: Of the sigmoid, in 1 / (unit of the input); batch-normalised inputs have a deviation near 1.
    """

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, input: Tensor) -> Tensor:
        """max(input, 0)."""
        return _Relu.apply(input, self.slope)  # type: ignore[no-any-return]


def with_surrogate_relus(state: ModelState, slope: float) -> ModelState:
    """The same model whose ReLU layers are surrogates; its outputs and its clients' updates do not change."""
    module = copy.deepcopy(state.module)
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.ReLU):
                setattr(parent, name, SurrogateReLU(slope))
    return ModelState(module, state.weights, state.statistics)


class _Relu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, input: Tensor, slope: float) -> Tensor:
        ctx.save_for_backward(input)
        ctx.slope = slope  # type: ignore[attr-defined]
        return input.clamp_min(0)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        (input,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return _Gate.apply(input, gradient, ctx.slope), None  # type: ignore[attr-defined]


class _Gate(torch.autograd.Function):
    """gradient · step(input), with a sigmoid's derivative for the step's."""

    @staticmethod
    def forward(ctx: FunctionCtx, input: Tensor, gradient: Tensor, slope: float) -> Tensor:
        ctx.save_for_backward(input, gradient)
        ctx.slope = slope  # type: ignore[attr-defined]
        return gradient * (input > 0)

    @staticmethod
    def backward(ctx: FunctionCtx, outer: Tensor) -> tuple[Tensor, Tensor, None]:
        input, gradient = ctx.saved_tensors  # type: ignore[attr-defined]
        sigmoid = torch.sigmoid(ctx.slope * input)  # type: ignore[attr-defined]
        slope = ctx.slope * sigmoid * (1 - sigmoid)  # type: ignore[attr-defined]
        return outer * gradient * slope, outer * (input > 0), None
