"""What all tests share: the --fix option, a small model, a small client."""

from pathlib import Path

import pytest
import torch

from leakpipe.federation.local import Batch, LocalSettings
from leakpipe.models.state import ModelState, build_module, initial_state
from leakpipe.params_models import ModelParams

PROJECT = Path(__file__).parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fix", action="store_true", help="Regenerate generated files instead of failing on drift.")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def small_state(*, seed: int = 0, dtype: torch.dtype = torch.float64, image_size: int = 8) -> ModelState:
    """A network with two batch-normalisation layers, small enough for finite differences."""
    params = ModelParams(name="convnet-bn", widths=(4, 6), strides=(1, 2))
    return initial_state(build_module(params, classes=2, image_size=image_size), seed=seed, dtype=dtype)


def small_batches(*sizes: int, seed: int = 1, dtype: torch.dtype = torch.float64, image_size: int = 8) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    return [
        Batch(
            torch.rand(size, 1, image_size, image_size, generator=generator, dtype=dtype),
            torch.randint(2, (size,), generator=generator),
        )
        for size in sizes
    ]


SETTINGS = LocalSettings(learning_rate=0.05, batch_norm_momentum=0.1)
