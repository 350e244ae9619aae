"""Surrogate ReLUs: the same network and the same updates, with another second derivative."""

import math

import pytest
import torch
from torch import nn

from leakpipe.attacks.surrogate import surrogate_relu, surrogate_slope, with_surrogate_relus
from leakpipe.client.batches import Batch
from leakpipe.client.local_update import local_update
from leakpipe.models.state import ModelState, forward_frozen, forward_training
from tests.conftest import SETTINGS, small_batches, small_state

DTYPES = [torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("forward", [lambda *a: forward_training(*a)[0], forward_frozen], ids=["training", "frozen"])
def test_outputs_have_the_same_bits(forward, dtype: torch.dtype) -> None:  # type: ignore[no-untyped-def]
    state, (batch,) = small_state(dtype=dtype), small_batches(3, dtype=dtype)
    assert torch.equal(forward(with_surrogate_relus(state, 4.0), batch.images), forward(state, batch.images))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("differentiable", [False, True])
def test_client_updates_have_the_same_bits(differentiable: bool, dtype: torch.dtype) -> None:
    state, batches = small_state(dtype=dtype), small_batches(3, 2, 1, dtype=dtype)
    batches = [Batch(batch.images.requires_grad_(differentiable), batch.labels) for batch in batches]
    expected = local_update(state, batches, SETTINGS)
    found = local_update(with_surrogate_relus(state, 4.0), batches, SETTINGS)
    for part in ("weights", "statistics"):
        for name, value in getattr(expected, part).items():
            assert torch.equal(getattr(found, part)[name], value), name


def test_the_gradient_of_an_update_is_another_one() -> None:
    state, (batch,) = small_state(), small_batches(2)
    images = batch.images.requires_grad_()

    def slope(model: ModelState) -> torch.Tensor:
        update = local_update(model, [Batch(images, batch.labels)], SETTINGS)
        return torch.autograd.grad(sum(value.square().sum() for value in update.weights.values()), images)[0]

    plain, surrogate = slope(state), slope(with_surrogate_relus(state, 4.0))
    assert surrogate.isfinite().all()
    assert (plain - surrogate).norm() > 0.01 * plain.norm()


@pytest.mark.parametrize("x", [-0.7, -0.01, 0.3, 2.0])
def test_one_unit_equals_the_formula(x: float) -> None:
    """Of f = v·relu(w·x), ∂f/∂w = v·step(w·x)·x; its derivative by x is v·(step(w·x) + x·w·slope·σ·(1 − σ))."""
    slope, w, v = 3.0, 1.5, -2.0
    pixel, weight = torch.tensor(x, dtype=torch.float64, requires_grad=True), torch.tensor(w, dtype=torch.float64)
    weight.requires_grad_()
    output = v * surrogate_relu(weight * pixel, slope)
    (by_weight,) = torch.autograd.grad(output, weight, create_graph=True)
    assert by_weight.item() == (v * x if w * x > 0 else 0)
    sigmoid = 1 / (1 + math.exp(-slope * w * x))
    expected = v * ((w * x > 0) + x * w * slope * sigmoid * (1 - sigmoid))
    assert torch.autograd.grad(by_weight, pixel)[0].item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("slope", [1.0, 4.0])
def test_gate_slope_is_that_of_a_sigmoid(slope: float) -> None:
    """The second derivative is the slope of sigmoid(slope·x), by finite differences."""
    x = torch.linspace(-2, 2, 9, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(surrogate_relu(x, slope).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    at = x.detach()
    differences = (torch.sigmoid(slope * (at + 1e-5)) - torch.sigmoid(slope * (at - 1e-5))) / 2e-5
    torch.testing.assert_close(second, differences, rtol=1e-8, atol=1e-8)


def test_two_layers_equal_backpropagation_by_hand_with_a_sigmoid_gate() -> None:
    slope, generator = 2.5, torch.Generator().manual_seed(0)
    x, w1, w2, probe = (torch.randn(*size, generator=generator).double() for size in ((4,), (5, 4), (3, 5), (5, 4)))
    x.requires_grad_(), w1.requires_grad_()
    loss = nn.functional.cross_entropy(w2 @ surrogate_relu(w1 @ x, slope), torch.tensor(1))
    (gradient,) = torch.autograd.grad(loss, w1, create_graph=True)

    inside = w1.detach() @ x
    sigmoid = torch.sigmoid(slope * inside)
    gate = (inside > 0) + sigmoid - sigmoid.detach()  # value of the step, slope of the sigmoid
    hidden = inside.detach().clamp_min(0) + (inside > 0) * (inside - inside.detach())  # ReLU as usual
    error = torch.softmax(w2 @ hidden, dim=0) - torch.tensor([0.0, 1.0, 0.0])
    by_hand = torch.outer(gate * (w2.T @ error), x)

    torch.testing.assert_close(gradient, by_hand)
    torch.testing.assert_close(
        torch.autograd.grad((gradient * probe).sum(), x)[0], torch.autograd.grad((by_hand * probe).sum(), x)[0]
    )


def test_the_original_is_left_alone_and_errors_leave_nothing_behind() -> None:
    state = small_state()
    replaced = with_surrogate_relus(state, 2.0)
    assert (surrogate_slope(state.module), surrogate_slope(replaced.module)) == (0.0, 2.0)
    assert replaced.module is not state.module
    assert all(mine is theirs for mine, theirs in zip(*(m.module.parameters() for m in (replaced, state)), strict=True))
    with pytest.raises(RuntimeError):
        forward_training(replaced, torch.ones(2, 1, 9, 9, dtype=torch.float64))  # the head reads another size
    values = torch.ones(2, requires_grad=True)
    assert torch.relu(values).grad_fn.name() == "ReluBackward0"  # type: ignore[union-attr]
