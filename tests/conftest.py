"""Shared by all tests: the --fix option, their division among workers, a small model and client, an empty MLflow."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from leakpipe.client.batches import Batch
from leakpipe.client.local_update import LocalSettings
from leakpipe.models.state import ModelState, build_module, initial_state
from leakpipe.params.models import ModelParams
from leakpipe.tracking.store import _create_database

PROJECT = Path(__file__).parent.parent
# Files whose tests share what takes long to prepare run on one worker each. (pytest-xdist 3.8 does not see its own
# `xdist_group` under pytest 9.2.)
TOGETHER = {
    "tests/workflow/test_audit.py": "audit",
    "tests/workflow/test_dvc.py": "dvc",
    "tests/workflow/test_docs.py": "quick experiment",
    "tests/workflow/test_interruption.py": "tiny experiment",
    "tests/workflow/test_places.py": "tiny experiment",
    "tests/workflow/test_reruns.py": "quick experiment",
    "tests/unit/test_figures.py": "figures",
    "tests/unit/test_rehearsal.py": "beliefs",
    "tests/unit/test_tracking.py": "tracking",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fix", action="store_true", help="Regenerate generated files instead of failing on drift.")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Returns the scheduler of pytest-xdist, which hands out single tests, and those of `TOGETHER` at once."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return TOGETHER.get(nodeid.partition("::")[0], nodeid)

    return Scheduler(config, log)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs, to be copied (making one takes seconds)."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    _create_database(path)
    return path


@pytest.fixture
def mlflow_uri(empty_store: Path, tmp_path: Path) -> str:
    """Address of an MLflow database of the test's own."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


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
