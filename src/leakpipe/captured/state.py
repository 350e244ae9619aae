"""The tensors of a file from elsewhere, before they are matched to a network."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from leakpipe.captured.limits import check_growth, check_names
from leakpipe.errors import LeakpipeError

Kind = Literal["full", "difference", "reversed-difference"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class CapturedState:
    """Tensors that a framework saved, on the CPU, with the dtypes of the file.

    Attributes:
        path: The file.
        tensors: Tensors by the names in the file, in its order; for a list without names, by position ("0", "1", …).
        positional: Whether the file is such a list.
        kind: What the tensors are where the file says it: the "full" state, or a "difference" (after minus before).
        facts: What else the file says of the update: leakpipe's own captures name round, client, direction, steps.
        notes: What was found and done, one sentence each.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    positional: bool = False
    kind: Kind | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def named_tensors(path: Path, named: Mapping[Any, object]) -> dict[str, Tensor]:
    """Checks tensors (of torch or numpy) by name; returns those of torch, dense and contiguous.

    Raises:
        LeakpipeError: A name is hostile, a value is no dense tensor of real numbers, or views unpack to far more than
            the file.
    """
    check_names(path, named)
    tensors = {name: _plain_tensor(path, name, value) for name, value in named.items()}
    check_growth(path, sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()))
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def listed_tensors(path: Path, values: Iterable[object]) -> dict[str, Tensor]:
    """Checks tensors without names, and returns them by position: "0", "1", …."""
    return named_tensors(path, {str(position): value for position, value in enumerate(values)})


def _plain_tensor(path: Path, name: str, value: object) -> Tensor:
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "fiub":
            raise LeakpipeError(f"{path}: array {name!r} is of dtype {value.dtype}, expected real numbers")
        native = value.astype(value.dtype.newbyteorder("="), copy=False)
        value = torch.from_numpy(native if native.flags.writeable else native.copy())
    if not isinstance(value, Tensor):
        raise LeakpipeError(f"{path}: {name!r} is a {type(value).__name__}, expected a tensor")
    if value.layout != torch.strided or value.is_quantized or value.is_meta or value.is_complex():
        kind = "quantized" if value.is_quantized else value.dtype if value.is_complex() else value.layout
        found = "without values" if value.is_meta else str(kind).removeprefix("torch.")
        raise LeakpipeError(f"{path}: tensor {name!r} is {found}, expected a dense tensor of real numbers")
    return value.detach()
