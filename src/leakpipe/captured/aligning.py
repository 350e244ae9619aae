"""Sorts the tensors of a file into those of a network: weights, running statistics, counters, other buffers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from leakpipe.captured.state import CapturedState
from leakpipe.errors import LeakpipeError
from leakpipe.models.batchnorm import batch_norm_names
from leakpipe.models.names import align_names
from leakpipe.models.state import ModelState

COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Aligned:
    """The tensors of one file by the network's names.

    Attributes:
        path: The file.
        weights: Those of `ModelState.weights` that the file has.
        statistics: Those of `ModelState.statistics` that it has.
        counters: Number of training batches that each batch-normalisation layer counted; averages have fractions.
        others: Buffers of other kinds.
        missing_weights: Names of weights that it lacks.
        missing_statistics: Names of running statistics that it lacks.
        facts: What the file says of the update.
        notes: What was done to recognise them.
    """

    path: Path
    weights: Mapping[str, Tensor]
    statistics: Mapping[str, Tensor]
    counters: Mapping[str, float]
    others: Mapping[str, Tensor]
    missing_weights: list[str]
    missing_statistics: list[str]
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def align(module: nn.Module, found: CapturedState) -> Aligned:
    """Finds a network's tensors in a file: by name, whatever prefixes wrappers added, or by order and shapes.

    Raises:
        LeakpipeError: The file has tensors that the network lacks, or of other shapes or kinds, or values that are not
            finite.
    """
    ours = module.state_dict()
    expected = {name: tuple(value.shape) for name, value in ours.items()}
    notes: list[str] = []
    named = _by_position(module, found, expected, notes) if found.positional else _by_name(found, expected, notes)
    for name, value in named.items():
        if tuple(value.shape) != expected[name] and not (value.numel() == 1 and name.endswith(COUNTER)):
            _refuse_shape(found.path, name, tuple(value.shape), expected[name])
        if ours[name].is_floating_point() and not value.is_floating_point():
            kind = str(value.dtype).removeprefix("torch.")
            raise LeakpipeError(
                f"{found.path}: tensor {name!r} holds {kind}, expected floating-point numbers; dequantize what is "
                "quantized"
            )
        if not torch.isfinite(value.double()).all():
            raise LeakpipeError(f"{found.path}: tensor {name!r} holds values that are not finite (NaN or infinity)")
    state = ModelState.of(module)
    first = _first_of_tied(module)
    weights = {first[name]: value for name, value in named.items() if name in first}
    statistics = {name: value for name, value in named.items() if name in state.statistics}
    counters = {name: float(value) for name, value in named.items() if name.endswith(COUNTER)}
    rest = named.keys() - first.keys() - statistics.keys() - counters.keys()
    return Aligned(
        found.path,
        weights,
        statistics,
        counters,
        {name: named[name] for name in named if name in rest},
        [name for name in state.weights if name not in weights],
        [name for name in state.statistics if name not in statistics],
        found.facts,
        notes,
    )


def _first_of_tied(module: nn.Module) -> dict[str, str]:
    """Returns the first name of each parameter by all its names: tied weights have several."""
    firsts: dict[int, str] = {}
    names = module.named_parameters(remove_duplicate=False)
    return {name: firsts.setdefault(id(parameter), name) for name, parameter in names}


def _by_name(found: CapturedState, expected: Mapping[str, tuple[int, ...]], notes: list[str]) -> dict[str, Tensor]:
    aligned, prefix = align_names(found.tensors, expected)
    if not aligned:
        ours, theirs = next(iter(expected), ""), next(iter(found.tensors))
        raise LeakpipeError(
            f"{found.path}: none of its {len(found.tensors)} tensors ({theirs!r}, …) has a name of the network's "
            f"({ours!r}, …): it is of another network"
        )
    taken = set(aligned.values())
    left = [name for name in found.tensors if name not in taken]
    if unknown := [name for name in left if name.startswith(prefix)]:
        raise LeakpipeError(
            f"{found.path}: tensor {unknown[0]!r} is not one of the network's, nor are {len(unknown) - 1} others of "
            f"{len(found.tensors)}: it is of another network"
        )
    if prefix:
        notes.append(f"{found.path.name}: names begin with {prefix!r}, which was taken off.")
    if left:
        notes.append(f"{found.path.name}: {len(left)} tensors beside the network ({left[0]!r}, …) were left out.")
    return {name: found.tensors[full] for name, full in aligned.items()}


def _by_position(
    module: nn.Module, found: CapturedState, expected: Mapping[str, tuple[int, ...]], notes: list[str]
) -> dict[str, Tensor]:
    """Gives a list of tensors the network's names: the first of the usual selections whose count and shapes fit."""
    shapes = [tuple(value.shape) for value in found.tensors.values()]
    kept = batch_norm_names(module)
    parameters = [name for name, _ in module.named_parameters()]
    selections: dict[str, Sequence[str]] = {
        "the whole state": [*expected],
        "the state without counters": [name for name in expected if not name.endswith(COUNTER)],
        "the parameters": parameters,
        "the parameters without batch normalisation": [name for name in parameters if name not in kept],
    }
    nearest = None
    for what, names in selections.items():
        if len(names) != len(shapes):
            continue
        wrong = _first_misfit(names, shapes, expected)
        if wrong is None:
            notes.append(f"{found.path.name}: {len(shapes)} tensors without names were taken for {what}, in its order.")
            return dict(zip(names, found.tensors.values(), strict=True))
        nearest = nearest or wrong
    if nearest is None:
        counts = ", ".join(f"{len(names)} ({what})" for what, names in selections.items())
        raise LeakpipeError(f"{found.path}: {len(shapes)} tensors without names, expected one of {counts}")
    position, name = nearest
    return _refuse_shape(found.path, f"{name} (position {position})", shapes[position], expected[name])


def _first_misfit(
    names: Sequence[str], shapes: Iterable[tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]
) -> tuple[int, str] | None:
    for position, (name, shape) in enumerate(zip(names, shapes, strict=True)):
        if shape != expected[name] and not (name.endswith(COUNTER) and shape in ((), (1,))):
            return position, name
    return None


def _refuse_shape(path: Path, name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> dict[str, Tensor]:
    hint = "it is of another network"
    if found != expected and sorted(found) == sorted(expected):
        hint = "its axes are in another order, as TensorFlow and JAX have them: convert it to torch's"
    raise LeakpipeError(f"{path}: tensor {name!r} has shape {found}, expected {expected}: {hint}")
