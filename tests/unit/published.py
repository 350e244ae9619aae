"""Made-up weights in place of published ones, which do not load here."""

import dataclasses
import hashlib
from pathlib import Path

import pytest
import torch

from leakpipe.models.weights import WEIGHTS


def publish(folder: Path, name: str, tensors: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that `tensors` are the weights that were published."""
    monkeypatch.setenv("LEAKPIPE_WEIGHTS", str(folder))
    path = folder / WEIGHTS[name].file
    torch.save(tensors, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(WEIGHTS._things, name, dataclasses.replace(WEIGHTS[name], sha256=sha256))
