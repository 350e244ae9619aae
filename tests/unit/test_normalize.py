"""Batch normalisation that returns its statistics, against torch's own, twice differentiated, and differences."""

import pytest
import torch
from torch.autograd import grad, gradcheck
from torch.nn.functional import batch_norm

from leakpipe.models.normalize import normalize_batch

EPSILON = 1e-3
Inputs = tuple[torch.Tensor, ...]


def drawn(shape: tuple[int, ...], *, affine: bool) -> Inputs:
    generator = torch.Generator().manual_seed(0)
    sizes = [shape, *([(shape[1],)] * 2 if affine else [])]
    return tuple(torch.randn(size, generator=generator, dtype=torch.float64).requires_grad_() for size in sizes)


def run(values: torch.Tensor, *affine: torch.Tensor) -> Inputs:
    weight, bias = affine or (None, None)
    return normalize_batch(values, weight, bias, EPSILON)


def run_torchs(values: torch.Tensor, *affine: torch.Tensor) -> Inputs:
    weight, bias = affine or (None, None)
    variance, mean = torch.var_mean(values, dim=(0, *range(2, values.dim())))
    return batch_norm(values, None, None, weight, bias, training=True, eps=EPSILON), mean, variance


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(3, 4, 5, 2), (6, 4)], ids=str)
def test_equals_torchs(shape: tuple[int, ...], affine: bool) -> None:
    """Values, first and second derivatives, where each output counts, and where weights are 0."""
    inputs = drawn(shape, affine=affine)
    if affine:
        inputs[1].data[0] = 0

    def derive(outputs: Inputs) -> list[torch.Tensor]:
        once = grad(outputs[0].pow(3).sum(), inputs, create_graph=True)
        total = sum(value.sin().sum() for value in once) + sum(value.square().sum() for value in outputs)
        return [*outputs, *once, *grad(total, inputs)]

    for mine, theirs in zip(derive(run(*inputs)), derive(run_torchs(*inputs)), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-10)


def test_derivatives_of_a_gradient_that_reaches_parameters_only() -> None:
    """As of a network's first layer, whose images' gradient is not part of an update."""
    inputs = drawn((3, 4, 5, 2), affine=True)

    def in_parameters(*inputs: torch.Tensor) -> Inputs:
        return grad(run(*inputs)[0].pow(3).sum(), inputs[1:], create_graph=True)

    assert gradcheck(in_parameters, inputs)
