"""A ReLU whose step has a slope for the attacker: same update, better direction.

A client's update contains each ReLU's derivative, a step that is 0 or 1. Differentiating the update once more
gives that step's derivative as 0, so a plain attack never learns that moving a pixel can switch a unit on or
off. Here forward and backward pass are ReLU's own, exactly; only when the BACKWARD pass is differentiated does
the derivative of a sigmoid of given slope stand in for that of the step (as surrogate gradients do for spiking
networks: Neftci, Mostafa, Zenke 2019).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.overrides import TorchFunctionMode

from leakpipe.models.any_module import copy_layers
from leakpipe.models.state import ModelState

IN_PLACE = (torch.relu_, Tensor.relu_)
RELUS = (nn.functional.relu, torch.relu, Tensor.relu, *IN_PLACE)
SLOPE = "surrogate_slope"  # attribute of the copied network


def surrogate_relu(input: Tensor, slope: float) -> Tensor:
    """`torch.relu` with a surrogate second derivative.

    Args:
        input: Any shape.
        slope: Of the sigmoid, in 1 / (unit of the input); batch-normalised inputs have a deviation near 1.
    """
    return _Relu.apply(input, slope)  # type: ignore[no-any-return]


def with_surrogate_relus(state: ModelState, slope: float) -> ModelState:
    """The same model whose ReLUs are surrogates, in layers and in calls; its outputs and updates do not change."""
    module = copy_layers(state.module)
    setattr(module, SLOPE, slope)
    active: list[_SurrogateRelus] = []

    def enter(*_: Any) -> None:
        active.append(_SurrogateRelus(slope))
        active[-1].__enter__()  # type: ignore[no-untyped-call]

    def leave(*_: Any) -> None:
        active.pop().__exit__(None, None, None)  # type: ignore[no-untyped-call]

    module.register_forward_pre_hook(enter)
    module.register_forward_hook(leave, always_call=True)
    return ModelState(module, state.weights, state.statistics)


def surrogate_slope(module: nn.Module) -> float:
    """The slope of a network's surrogate ReLUs; 0 if they are none."""
    return float(getattr(module, SLOPE, 0.0))


class _SurrogateRelus(TorchFunctionMode):
    """Replaces every call of a ReLU, which also is what `torch.nn.ReLU` makes."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        if func not in RELUS:
            return func(*args, **named)
        input = args[0] if args else named["input"]
        if func in IN_PLACE or named.get("inplace") or True in args[1:]:
            return input.copy_(surrogate_relu(input.clone(), self.slope))  # the copy is kept for the backward pass
        return surrogate_relu(input, self.slope)


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
        return torch.ops.aten.threshold_backward(gradient, input, 0)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: FunctionCtx, outer: Tensor) -> tuple[Tensor, Tensor, None]:
        input, gradient = ctx.saved_tensors  # type: ignore[attr-defined]
        slope: float = ctx.slope  # type: ignore[attr-defined]
        switched = torch.ops.aten.sigmoid_backward(outer * gradient, torch.sigmoid(slope * input))
        return switched.mul_(slope), torch.ops.aten.threshold_backward(outer, input, 0), None
