"""The state that a federation starts from: drawn, published, or out of a file."""

import re
from pathlib import Path

import torch
from torch import Tensor, nn

from leakpipe.errors import LeakpipeError
from leakpipe.models.catalog import MODELS, find_model_weights
from leakpipe.models.state import ModelState, Tensors, initial_state
from leakpipe.models.tensor_files import parse_tensors, read_tensors
from leakpipe.models.weights import read_weights
from leakpipe.params.models import ArchitectureParams

# What wrappers put before a tensor's name: our storage, torch's DataParallel, AugNet, our adapter of torchvision.
WRAPPERS = re.compile(r"^(weights/|statistics/|module\.|pre\.|network\.)*")
OLD_DENSE_LAYER = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")  # as torchvision's file still has it


def pretrained_state(params: ArchitectureParams, weights: str, module: nn.Module, *, seed: int) -> ModelState:
    """Draw a state from `seed` and put the weights that the parameters ask for in its place.

    Where the file has no head (last linear layer) or one of another shape, for other classes, the head stays drawn.
    Running statistics are the file's.

    Args:
        weights: As `model.weights`, but not `public`: nothing is trained here.
        module: The architecture that `params` describe.

    Raises:
        LeakpipeError: The weights are missing, are not the published ones, or are of another model.
    """
    drawn = initial_state(module, seed=seed)
    if weights == "random":
        return drawn
    published = MODELS[params.name].published.get(weights)
    if published is None:
        path = Path(weights)
        return take_tensors(drawn, read_tensors(path, field="model.weights"), source=f"model.weights: {path}")
    path = find_model_weights(published)
    return take_tensors(drawn, parse_tensors(read_weights(published, path), path), source=f"model.weights: {path}")


def take_tensors(state: ModelState, tensors: Tensors, *, source: str) -> ModelState:
    """The state with the values of `tensors`, under any of the names that wrappers give them.

    Raises:
        LeakpipeError: A tensor is missing, unknown, not finite or of another shape (but for the head); `source`
            begins the sentence.
    """
    found = {_bare(name): tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    expected = {**state.weights, **state.statistics}
    bare = {_bare(name): name for name in expected}
    for name in found:
        if name not in bare:
            raise LeakpipeError(f"{source}: tensor {name!r} is not one of the model's")
    head = {name for name, full in bare.items() if full.rpartition(".")[0] == _head(state.module)}
    fits = all(name in found and found[name].shape == expected[bare[name]].shape for name in head)
    taken: dict[str, Tensor] = {}
    for name in [name for name in bare if fits or name not in head]:
        wanted = expected[bare[name]]
        if name not in found:
            raise LeakpipeError(f"{source}: tensor {name!r} is missing; the model has it")
        if found[name].shape != wanted.shape:
            shapes = f"shape {tuple(found[name].shape)}, expected {tuple(wanted.shape)}"
            raise LeakpipeError(f"{source}: tensor {name!r} has {shapes}")
        if not torch.isfinite(found[name]).all():
            raise LeakpipeError(f"{source}: tensor {name!r} holds values that are not finite (NaN or infinity)")
        taken[bare[name]] = found[name].to(wanted.dtype)
    everything = expected | taken
    return state.with_tensors(
        {name: everything[name] for name in state.weights}, {name: everything[name] for name in state.statistics}
    )


def _bare(name: str) -> str:
    """A tensor's name without what wrappers put before it."""
    return OLD_DENSE_LAYER.sub(r"\1\2.", WRAPPERS.sub("", name))


def _head(module: nn.Module) -> str:
    names: list[str] = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    return names[-1]
