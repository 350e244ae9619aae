"""The state that training starts from: drawn at random, published weights, or a file of the user's own.

Files of tensors (`.pth`, `.safetensors`) are read without running any code that they may contain.
"""

import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from leakpipe.errors import LeakpipeError
from leakpipe.files.log import note_read
from leakpipe.models.catalog import MODELS, find_model_weights
from leakpipe.models.layers import head_layer
from leakpipe.models.names import align_names
from leakpipe.models.state import ModelState, Tensors, initial_state
from leakpipe.models.weights import WEIGHTS
from leakpipe.params.models import ArchitectureParams

NESTED = ("state_dict", "model")  # keys under which training scripts store the weights among other things
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def pretrained_state(params: ArchitectureParams, weights: str, module: nn.Module, *, seed: int) -> ModelState:
    """Draws a state from `seed` and replaces it by the weights that the parameters name.

    The head (last linear layer) stays drawn where the file has none, or one for another number of classes. Running
    statistics are the file's.

    Args:
        weights: As `model.weights`, except `public`: nothing is trained here.
        module: The architecture that `params` describe.

    Raises:
        LeakpipeError: The weights are missing, are not the published ones, or belong to another model.
    """
    drawn = initial_state(module, seed=seed)
    if weights == "random":
        return drawn
    published = MODELS[params.name].published.get(weights)
    path = find_model_weights(published) if published else Path(weights)
    tensors = read_published(published, path) if published else read_tensors(path, field="model.weights")
    return take_tensors(drawn, tensors, source=f"model.weights: {path}")


def take_tensors(state: ModelState, tensors: Tensors, *, source: str) -> ModelState:
    """Returns the state with the values of `tensors`, whatever prefixes wrappers put before their names.

    Raises:
        LeakpipeError: A tensor is missing, unknown, not finite or of another shape (except the head's); the message
            begins with `source`.
    """
    found = {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    expected = {**state.weights, **state.statistics}
    aligned, _ = align_names(found, expected)
    for name in found.keys() - aligned.values():
        raise LeakpipeError(f"{source}: tensor {name!r} is not one of the model's")
    given = {name: found[theirs] for name, theirs in aligned.items()}
    head = {name for name in expected if name.rpartition(".")[0] == head_layer(state)}
    fits = all(name in given and given[name].shape == expected[name].shape for name in head)
    taken: dict[str, Tensor] = {}
    for name in [name for name in expected if fits or name not in head]:
        wanted = expected[name]
        if name not in given:
            raise LeakpipeError(f"{source}: tensor {name!r} is missing; the model has it")
        if given[name].shape != wanted.shape:
            shapes = f"shape {tuple(given[name].shape)}, expected {tuple(wanted.shape)}"
            raise LeakpipeError(f"{source}: tensor {name!r} has {shapes}")
        if given[name].dtype not in FLOATS or given[name].layout != torch.strided or given[name].is_meta:
            kind = str(given[name].dtype).removeprefix("torch.")
            raise LeakpipeError(
                f"{source}: tensor {name!r} holds {kind}, expected dense floating-point numbers; dequantize what "
                "is quantized"
            )
        taken[name] = given[name].to(wanted.dtype)
        if not torch.isfinite(taken[name]).all():  # or become so, where float64 is more than float32 can be
            raise LeakpipeError(f"{source}: tensor {name!r} holds values that are not finite (NaN or infinity)")
    return state.replacing(taken)


def read_published(name: str, path: Path) -> Tensors:
    """Reads published weights from the file that `find_weights` found; `LeakpipeError` if its SHA-256 is another."""
    content = path.read_bytes()
    found, expected = hashlib.sha256(content).hexdigest(), WEIGHTS[name].sha256
    if not found.startswith(expected):
        raise LeakpipeError(f"{path}: SHA-256 begins with {found[:8]}, expected {expected[:8]} of {name!r}'s weights")
    note_read(path)
    return _parse_tensors(content, path)


def read_tensors(path: Path, *, field: str) -> Tensors:
    """Reads the tensors, by name, of a `.safetensors` or `.pth` file that `field` of the parameters names.

    Raises:
        LeakpipeError: The file cannot be read or does not hold tensors by name.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LeakpipeError(f"{field}: {path}: cannot be read: {error.strerror or error}") from error
    note_read(path)
    return _parse_tensors(content, path)


def _parse_tensors(content: bytes, path: Path) -> Tensors:
    """Parses the bytes of `path`; torch's `weights_only` refuses all pickles but tensors in plain containers."""
    from safetensors.torch import load  # importing this package needs no safetensors

    try:
        if path.suffix == ".safetensors":
            return load(content)
        found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise LeakpipeError(
            f"{path}: holds more than tensors and plain containers, or is damaged; code in it is not run; save it "
            "again by torch.save(model.state_dict(), path)"
        ) from error
    except Exception as error:  # both raise many types, some of their own
        kind = "safetensors" if path.suffix == ".safetensors" else "torch"
        raise LeakpipeError(f"{path}: is damaged or not a file that {kind} saved tensors in") from error
    for name in NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
    if not (isinstance(found, Mapping) and found and all(map(_is_named_tensor, *zip(*found.items(), strict=True)))):
        raise LeakpipeError(f"{path}: expected tensors by name, as `module.state_dict()` returns them")
    return found


def _is_named_tensor(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor)
