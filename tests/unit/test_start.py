"""Imports of a job before it computes: every job is a process of its own, and libraries take seconds."""

import subprocess
import sys

import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d

from leakpipe.attacks.engines.double_backward.base import Linear, pull_back


def loaded_by(code: str, *modules: str) -> list[str]:
    """Those of `modules` that a new Python has loaded after `code`."""
    code = f"import sys\n{code}\nprint(*(name for name in {modules!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()


def test_starting_imports_the_command_that_is_called_and_little_else() -> None:
    called = "from leakpipe.cli.main import main\nmain(['split-data', '--help'], standalone_mode=False)"
    commands = ("leakpipe.cli.split_data", "leakpipe.cli.invert", "leakpipe.cli.plot", "leakpipe.cli.track")
    slow = ("numpy", "pandas", "pydantic", "yaml", "tqdm", "torch", "matplotlib", "scipy")
    assert loaded_by(called, *commands, *slow) == ["leakpipe.cli.split_data"]


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("leakpipe.tables.statistics", ("scipy.stats", "scipy.optimize", "torch")),
        ("leakpipe.metrics.identifiability", ("scipy.spatial", "torch")),
        ("leakpipe.figures.lines", ("scipy.stats", "matplotlib.pyplot", "torch")),
        ("leakpipe.claims.judge", ("scipy.stats", "torch")),
    ],
)
def test_tables_and_figures_import_no_more_than_they_use(module: str, unwanted: tuple[str, ...]) -> None:
    assert loaded_by(f"import {module}", *unwanted) == []


def test_differentiating_a_linear_layer_imports_no_sympy() -> None:
    if loaded_by("import torch", "sympy"):
        pytest.skip("this torch imports sympy by itself")
    layer = "import torch\nfrom leakpipe.attacks.engines.double_backward.base import Linear\n"
    layer += "Linear(torch.nn.Flatten(), torch.zeros(1, 1, 2, 2)).backward(torch.ones(1, 4))"
    assert loaded_by(layer, "sympy") == []


def test_pull_back_gives_what_torch_gives_and_keeps_the_graph() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second, unused = (torch.rand(2, 3, 4, 4, generator=generator, requires_grad=True) for _ in range(3))
    result = adaptive_avg_pool2d(first * 2 + second, 2)
    adjoint = torch.rand(result.shape, generator=generator)
    expected = torch.autograd.grad(result, [first, second, unused], adjoint, retain_graph=True, allow_unused=True)
    for _ in range(2):
        found = pull_back(adjoint, result, [first, second, unused])
        assert found[2] is expected[2] is None
        assert all(torch.equal(*pair) for pair in zip(found[:2], expected[:2], strict=True))
    assert all(value.grad is None for value in (first, second))


def test_a_linear_layers_reverse_pass_is_its_backward_pass() -> None:
    images, delta = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 1, 1)
    layer = Linear(torch.nn.AdaptiveAvgPool2d(1), images)
    (found,) = layer.backward(delta)
    torch.testing.assert_close(found, (delta / 16).expand_as(images))
    assert torch.equal(layer.reverse(delta)[0], found)
