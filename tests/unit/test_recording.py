"""Functions as graphs of torch's operations: run again on other values, they are held against the functions."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from leakpipe.attacks.recording import Recorded, RecordingError

KNOWN = torch.tensor([3.0, -1.0, 0.5, 2.0])


def values(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape or (4,), generator=torch.Generator().manual_seed(seed)) + 0.1


def gradient(x: Tensor) -> Tensor:
    """Of a sum whose terms have the gradient of another sum in them."""
    x = x.detach().requires_grad_()
    (inner,) = torch.autograd.grad((x.sin() * KNOWN).sum(), x, create_graph=True)
    (found,) = torch.autograd.grad((inner.square() * x).sum(), x)
    return found


def write_to_constants(x: Tensor) -> Tensor:
    total = torch.zeros(4)
    total[torch.tensor([0, 2])] = x[:2]
    return total.add_(KNOWN).mul_(x)


def choose_by_a_known_mask(x: Tensor) -> Tensor:
    chosen = x[KNOWN > 0].cumsum(0)
    x = x.clone()
    x[KNOWN > 0] = chosen
    return x


def decide_by_known_values(x: Tensor) -> Tensor:
    return x * 2 if KNOWN.any() and KNOWN.sum().item() > 0 else x


def convolve(x: Tensor) -> Tensor:
    weight = torch.arange(8.0).view(2, 1, 2, 2)
    normal = torch.nn.functional.batch_norm(x.view(1, 1, 2, 2), None, None, None, None, True, 0.0, 1e-5)
    return torch.nn.functional.conv2d(normal, weight).flatten().split(1)[1]


@pytest.mark.parametrize(
    "function", [gradient, write_to_constants, choose_by_a_known_mask, decide_by_known_values, convolve]
)
def test_the_graph_does_what_the_function_does(function: Callable[[Tensor], Tensor]) -> None:
    recorded = Recorded(function, values(0))
    again = recorded.runner(recorded.graph)
    for seed in (0, 1, 2, 1):
        assert torch.equal(again(values(seed)), function(values(seed)))
    assert not torch.equal(again(values(1)), again(values(2)))


def test_arguments_and_results_are_nested() -> None:
    def function(rows: dict[str, Tensor], shift: Tensor | None, pair: tuple[Tensor, ...]) -> dict[str, object]:
        moved = {name: row + pair[0] for name, row in rows.items()}
        return {"moved": moved, "same": rows["b"], "known": KNOWN, "nothing": {} if shift is None else {"x": shift}}

    def arguments(seed: int) -> tuple[dict[str, Tensor], None, tuple[Tensor, ...]]:
        return {"b": values(seed), "a": values(seed + 10)}, None, (values(seed + 20),)

    recorded = Recorded(function, *arguments(0))
    torch.testing.assert_close(recorded.runner(recorded.graph)(*arguments(1)), function(*arguments(1)), rtol=0, atol=0)


def test_what_does_not_depend_on_the_arguments_is_computed_once_and_read() -> None:
    def function(x: Tensor) -> Tensor:
        return x * KNOWN.exp().sum().sqrt()

    recorded = Recorded(function, values(0))
    assert [node.op for node in recorded.graph.graph.nodes] == ["placeholder"] * 2 + ["call_function", "output"]
    (constant,) = recorded.constants
    assert torch.equal(constant, KNOWN.exp().sum().sqrt())


def test_functions_that_differ_in_constants_have_the_same_graph() -> None:
    graphs = [Recorded(lambda x, known=known: x * known + known, values(0)).graph for known in (KNOWN, KNOWN + 1)]
    assert graphs[0].code == graphs[1].code


def test_calls_leave_constants_as_they_are() -> None:
    recorded = Recorded(write_to_constants, values(0))
    before = [constant.clone() for constant in recorded.constants]
    recorded.runner(recorded.graph)(values(1))
    torch.testing.assert_close(recorded.constants, before, rtol=0, atol=0)


def reads_another_view(x: Tensor) -> Tensor:
    total = torch.zeros(2, 2)
    total[0].add_(x[:2])
    return total * x[:2]


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: x * x.sum().item(), "reads a value"),
        (lambda x: x if x.any() else -x, "reads a value"),
        (lambda x: x + torch.rand(4), "draws random numbers"),
        (lambda x: x[x > 0.5], "depends on values"),
        (lambda x: x.nonzero(), "shape depends on values"),
        (reads_another_view, "another view"),
    ],
)
def test_what_a_graph_cannot_hold_is_refused(function: Callable[[Tensor], Tensor], said: str) -> None:
    with pytest.raises(RecordingError, match=said):
        Recorded(function, values(0))
