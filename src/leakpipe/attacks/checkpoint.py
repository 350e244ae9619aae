"""A running search on disk, so that a killed attack continues where it was."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from leakpipe.attacks.progress import CHECKPOINT, SavedSearch, to_hex
from leakpipe.attacks.search_state import SearchState
from leakpipe.errors import LeakpipeError
from leakpipe.files.storage import read_arrays, sidecar_path, write_arrays

CPU = torch.device("cpu")


class Checkpoint:
    """The file that a search is saved in.

    Args:
        path: Ends in `.safetensors`.
        key: Names all that the search depends on (settings, observation, seed, code); a file of another key is
            of another search and is ignored.
        seconds: Least time between two saves.
        labels: What the job is for, for who looks at its progress.
    """

    def __init__(self, path: Path, *, key: str, seconds: float = 30.0, labels: Mapping[str, Any] | None = None) -> None:
        self.path, self.key, self.seconds, self.labels = path, key, seconds, dict(labels or {})
        self._saved = time.monotonic()

    def load(self, device: torch.device = CPU) -> SearchState | None:
        """The saved state on a device; None if there is none, it is of another search, or it is damaged."""
        try:
            arrays, metadata = read_arrays(self.path, CHECKPOINT)
            saved = SavedSearch.model_validate(metadata)
        except (LeakpipeError, ValidationError):  # never written, cut off in the middle, or an older format
            return None
        if saved.key != self.key or not arrays.keys() >= {"variables", "best"}:
            return None
        tensors = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        return SearchState(
            iteration=saved.iteration,
            variables=tensors["variables"],
            optimizer_state=_under("optimizer/", tensors),
            optimizer_start=saved.optimizer_start,
            best=tensors["best"],
            best_objective=torch.tensor(saved.best_objective, dtype=torch.float64, device=device),
            best_distance=torch.tensor(saved.best_distance, dtype=torch.float64, device=device),
            start_distance=torch.tensor(saved.start_distance, dtype=torch.float64, device=device),
            improved=torch.tensor(saved.improved, dtype=torch.bool, device=device),
            alive=torch.tensor(saved.alive, dtype=torch.bool, device=device),
            memory=_under("memory/", tensors),
            reached=saved.reached,
            reference=saved.reference,
            curves=saved.curves,
            notes=tuple(saved.notes),
            stopped=saved.stopped,
        )

    def save(self, state: SearchState) -> None:
        """Write the state, whole or not at all."""
        arrays = {
            "variables": state.variables.cpu().numpy(),
            "best": state.best.cpu().numpy(),
            **{f"optimizer/{name}": value.nan_to_num().cpu().numpy() for name, value in state.optimizer_state.items()},
            **{f"memory/{name}": value.cpu().numpy() for name, value in state.memory.items()},
        }
        metadata = {
            "key": self.key,
            "labels": self.labels,
            "iteration": state.iteration,
            "optimizer_start": state.optimizer_start,
            "best_objective": [to_hex(value) for value in state.best_objective.tolist()],
            "best_distance": [to_hex(value) for value in state.best_distance.tolist()],
            "start_distance": [to_hex(value) for value in state.start_distance.tolist()],
            "improved": state.improved.tolist(),
            "alive": state.alive.tolist(),
            "reached": to_hex(state.reached),
            "reference": to_hex(state.reference),
            "curves": dict(state.curves),
            "notes": list(state.notes),
            "stopped": state.stopped,
        }
        write_arrays(self.path, CHECKPOINT, arrays, metadata)
        self._saved = time.monotonic()

    def save_if_due(self, state: SearchState) -> None:
        """`save`, unless the last one was less than `seconds` ago."""
        if time.monotonic() - self._saved >= self.seconds:
            self.save(state)

    def remove(self) -> None:
        """Delete the file: the search has ended and its result is written."""
        for path in (self.path, sidecar_path(self.path)):
            path.unlink(missing_ok=True)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
