"""An update as an attack reads it: names, dtypes and values made those of the model, or refused in one sentence."""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leakpipe.client.local_update import LocalSettings
from leakpipe.client.update import ClientUpdate
from leakpipe.errors import LeakpipeError
from leakpipe.models.batchnorm import batch_norm_layers
from leakpipe.models.names import align_names
from leakpipe.models.state import ModelState, Tensors

Note = Callable[[str], None]
WHOLE = (torch.float32, torch.float64)  # dtypes that attacks compute in


def as_tensor(value: Any, *, field: str) -> Tensor:
    """Returns a tensor of a tensor or a NumPy array; `LeakpipeError` where it is neither."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value))
    if not isinstance(value, Tensor):
        raise LeakpipeError(f"{field}: {type(value).__name__}, expected a tensor or a NumPy array")
    return value.detach()


def check_finite(value: Tensor, *, field: str) -> None:
    """Raises `LeakpipeError` for NaN and infinity."""
    if not bool(torch.isfinite(value).all()):
        kind = "NaN" if bool(torch.isnan(value).any()) else "infinity"
        raise LeakpipeError(
            f"{field}: holds {kind}, expected finite values; the training diverged, or the file is damaged"
        )


def harmonise_model(state: ModelState, note: Note) -> ModelState:
    """Returns the model in float32 or float64, with finite values.

    Raises:
        LeakpipeError: A tensor holds whole numbers, or values that are not finite.
    """
    tensors = {**state.weights, **state.statistics}
    for name, value in tensors.items():
        if not value.is_floating_point():
            raise LeakpipeError(
                f"model: {name!r} is {_name(value.dtype)}, expected floating-point numbers; dequantise it"
            )
        check_finite(value, field=f"model: {name!r}")
    dtypes = {value.dtype for value in tensors.values()}
    if len(dtypes) <= 1 and dtypes <= set(WHOLE):
        return state
    dtype = torch.float64 if torch.float64 in dtypes else torch.float32
    note(f"The model's {_names(dtypes)} tensors were taken as {_name(dtype)}.")
    return replace(
        state,
        module=copy.deepcopy(state.module).to(dtype),
        weights={name: value.to(dtype) for name, value in state.weights.items()},
        statistics={name: value.to(dtype) for name, value in state.statistics.items()},
    )


def harmonise_update(update: ClientUpdate, before: ModelState, note: Note) -> ClientUpdate:
    """Returns the update with the model's names and dtype.

    Prefixes of wrappers ("module.") are taken off; frozen parameters that did not move, further names of shared
    ones, and counters of batches are left out.

    Raises:
        LeakpipeError: A tensor holds whole numbers or values that are not finite, or a frozen parameter moved.
    """
    weights = _harmonised("weights", update.weights, before.weights, before, note)
    statistics = _harmonised("statistics", update.statistics, before.statistics, before, note)
    return replace(update, weights=weights, statistics=statistics)


def _harmonised(part: str, found: Mapping[str, Any], expected: Tensors, before: ModelState, note: Note) -> Tensors:
    tensors: Tensors = {name: as_tensor(value, field=f"update: {part}: {name!r}") for name, value in found.items()}
    if not tensors.keys() <= expected.keys():
        tensors = _renamed(part, tensors, before, expected, note)
    dtypes = set()
    for name, value in tensors.items():
        if not value.is_floating_point():
            raise LeakpipeError(
                f"update: {part}: {name!r} is {_name(value.dtype)}, expected floating-point numbers; dequantise it"
            )
        check_finite(value, field=f"update: {part}: {name!r}")
        if name in expected and value.dtype != expected[name].dtype:
            dtypes.add(value.dtype)
    if dtypes:
        dtype = next(iter(expected.values())).dtype
        lost = " what rounding lost stays lost" if dtypes - set(WHOLE) else " the model's dtype"
        note(f"The update's {part} in {_names(dtypes)} were taken as {_name(dtype)}:{lost}.")
    return {name: value.to(expected[name].dtype) if name in expected else value for name, value in tensors.items()}


def _renamed(part: str, tensors: Tensors, before: ModelState, expected: Tensors, note: Note) -> Tensors:
    """Returns the tensors by the model's names where all of them are recognised; as they are otherwise."""
    parameters = dict(before.module.named_parameters(remove_duplicate=False))
    firsts = {id(value): name for name, value in reversed(list(before.module.named_parameters(remove_duplicate=False)))}
    known = {*parameters, *expected, *(name for name, _ in before.module.named_buffers())}
    aligned, prefix = align_names(tensors, known)
    if len(aligned) < len(tensors):
        return tensors
    found: dict[str, Tensor] = {}
    for name, given in aligned.items():
        if name in expected:
            found[name] = tensors[given]
        elif name in parameters and not parameters[name].requires_grad and bool(tensors[given].any()):
            raise LeakpipeError(
                f"update: {part}: {given!r} moved, but the network's parameter is frozen (requires_grad is False); "
                "unfreeze what the client trained"
            )
        elif name in parameters and firsts[id(parameters[name])] not in expected and parameters[name].requires_grad:
            return tensors  # another part's: the check of names says which
    if prefix:
        note(f"Names of the update's {part} begin with {prefix!r}, which was taken off.")
    return found


def harmonise_settings(settings: LocalSettings, before: ModelState, *, steps: int, note: Note) -> LocalSettings:
    """Checks the learning rate and the momentum of batch normalisation.

    A momentum of None, torch's cumulative average, is worked out from the counters of the network's layers.

    Raises:
        LeakpipeError: One is out of its range, or a cumulative average is of several steps.
    """
    rate, momentum = settings.learning_rate, settings.batch_norm_momentum
    if not (isinstance(rate, int | float) and math.isfinite(rate) and rate > 0):
        raise LeakpipeError(f"learning_rate: {rate}, expected a number above 0: the client's step size")
    if momentum is None:
        counters = [layer.get_buffer("num_batches_tracked") for layer in batch_norm_layers(before.module).values()]
        counted = {int(counter) for counter in counters if not counter.is_meta}
        if len(counted) != 1 or steps != 1:
            raise LeakpipeError(
                f"batch_norm_momentum: None (a cumulative average) over {steps} local steps, expected one step and "
                "layers that counted the same batches; give the number in (0, 1] that fits"
            )
        momentum = 1 / (counted.pop() + 1)
        note(f"batch_norm_momentum: None was taken as {momentum:g}, of the batches that the layers have counted.")
        return replace(settings, batch_norm_momentum=momentum)
    if not 0 < momentum <= 1:
        raise LeakpipeError(f"batch_norm_momentum: {momentum}, expected a number in (0, 1], torch's `momentum`")
    return settings


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _names(dtypes: set[torch.dtype]) -> str:
    return " and ".join(sorted(map(_name, dtypes)))
