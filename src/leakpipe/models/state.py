"""A model as data: an architecture, and the tensors that it is evaluated with."""

import copy
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from leakpipe.errors import LeakpipeError
from leakpipe.models.any_module import copy_network, switch_off_dropout
from leakpipe.models.batchnorm import (
    BatchStatistics,
    batch_norm_layers,
    batch_norm_names,
    keep_batch_statistics,
    mean_name,
    record_batch_statistics,
    variance_name,
)
from leakpipe.models.catalog import MODELS
from leakpipe.models.normalization import NORMALIZATIONS
from leakpipe.params.models import ArchitectureParams

Tensors = Mapping[str, Tensor]
Result = TypeVar("Result")
Forward = Callable[[Tensor], tuple[Tensor, Mapping[str, BatchStatistics]]]  # images to logits and batch statistics


@dataclass(frozen=True)
class ModelState:
    """All that a federation shares of a model. Nothing in it changes in place.

    Attributes:
        module: The architecture: any network, whose own tensors are never written. It is read for what the state lacks:
            frozen parameters and other buffers.
        weights: Trainable parameters by torch's names; of one that several layers share, the first name.
        statistics: Running statistics of batch normalisation by torch's names ("features.1.running_mean",
            "features.1.running_var"; the variance is unbiased).
    """

    module: nn.Module
    weights: Tensors
    statistics: Tensors

    @classmethod
    def of(cls, module: nn.Module, *, dropout: bool = True) -> "ModelState":
        """Returns the state that a network holds now, of a copy: what later happens to the network changes nothing.

        Args:
            module: Any network that maps images to logits. Wrappers of data parallelism, Opacus and torch.compile are
                taken off; parameters that require no gradient stay as they are.
            dropout: Whether the client trained with the network's dropout. An attack refuses a network with dropout,
                which it cannot know the draws of. False states the belief that the client trained without.

        Raises:
            LeakpipeError: The network cannot be copied, or has nothing to train.
        """
        module = copy_network(module)
        if not dropout:
            switch_off_dropout(module)
        names = [name for layer in batch_norm_layers(module) for name in (mean_name(layer), variance_name(layer))]
        weights = {name: value.detach() for name, value in module.named_parameters() if value.requires_grad}
        return cls(module, weights, {name: module.get_buffer(name) for name in names})

    @property
    def device(self) -> torch.device:
        """The device of the tensors; the CPU for a model without any."""
        return next((value.device for value in self.weights.values()), torch.device("cpu"))

    def to(self, device: torch.device) -> "ModelState":
        """Returns the state on a device, with what the network holds besides; itself where it is there."""
        if self.device == device:
            return self
        module = self.module
        if not any(value.is_meta for value in module.parameters()):
            module = copy.deepcopy(module).to(device)
        return ModelState(
            module,
            {name: value.to(device) for name, value in self.weights.items()},
            {name: value.to(device) for name, value in self.statistics.items()},
        )

    def with_tensors(self, weights: Tensors, statistics: Tensors) -> "ModelState":
        """Returns the same architecture with other tensors."""
        return replace(self, weights=weights, statistics=statistics)

    def replacing(self, tensors: Tensors) -> "ModelState":
        """Returns the same state with the values of `tensors` under their names; names it does not have are ignored."""
        return self.with_tensors(
            {name: tensors.get(name, value) for name, value in self.weights.items()},
            {name: tensors.get(name, value) for name, value in self.statistics.items()},
        )


def shared_part(state: ModelState, held: Iterable[str], *, removed: Collection[str] = ()) -> ModelState:
    """Returns the part of a model that an update with the tensors `held` changes.

    That is the whole model, or all but batch normalisation if the update holds none of it: a client that keeps its
    batch normalisation (FedBN) keeps all of it.

    Args:
        removed: Names of tensors that the client took out of the update.
    """
    kept = batch_norm_names(state.module)
    missing = {*removed, *(kept if kept.isdisjoint(held) else ())}
    if not missing:
        return state
    weights, statistics = (
        {name: value for name, value in part.items() if name not in missing}
        for part in (state.weights, state.statistics)
    )
    return state.with_tensors(weights, statistics)


def build_module(params: ArchitectureParams, *, classes: int, image_size: int) -> nn.Module:
    """Builds an architecture whose tensors hold no values (on torch's "meta" device)."""
    with torch.device("meta"):
        return MODELS[params.name].build(params, NORMALIZATIONS[params.normalization], classes, image_size)


def initial_state(module: nn.Module, *, seed: int, dtype: torch.dtype = torch.float32) -> ModelState:
    """Draws an untrained state: torch's default initialisation, from a generator of its own.

    Weights and biases of convolutions and linear layers are uniform in ±1/√fan_in; normalisation starts as the
    identity (weight 1, bias 0, running mean 0, running variance 1). The parts of attention, and what transformers and
    ConvNeXt hold outside of layers, are as `_OTHER` says.

    Raises:
        LeakpipeError: A layer has a parameter of another kind.
    """
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = {}
    statistics: dict[str, Tensor] = {}
    for name, layer in module.named_modules():
        if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d | nn.GroupNorm | nn.LayerNorm):
            width = layer.weight.shape
            weights[f"{name}.weight"] = torch.ones(width, dtype=dtype, device="cpu")
            weights[f"{name}.bias"] = torch.zeros(width, dtype=dtype, device="cpu")
        if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d):
            statistics[mean_name(name)] = torch.zeros(width, dtype=dtype, device="cpu")
            statistics[variance_name(name)] = torch.ones(width, dtype=dtype, device="cpu")
        elif isinstance(layer, nn.GroupNorm | nn.LayerNorm):
            continue
        elif isinstance(layer, nn.Conv2d | nn.Conv3d | nn.Linear):
            bound = layer.weight[0].numel() ** -0.5
            for kind, parameter in layer.named_parameters():
                uniform = torch.rand(parameter.shape, generator=generator, dtype=dtype, device="cpu")
                weights[f"{name}.{kind}"] = (2 * uniform - 1) * bound
        else:
            for kind, parameter in layer.named_parameters(recurse=False):
                if kind not in _OTHER:
                    raise LeakpipeError(f"model: {name}.{kind}: cannot be drawn; the kind of its layer is not known")
                weights[f"{name}.{kind}"] = _OTHER[kind](parameter.shape, generator).to(dtype)
    return ModelState(module, weights, statistics)


def _attention_weight(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Uniform in ±√(6 / (inputs + outputs)), as torch's `MultiheadAttention` (Glorot and Bengio 2010)."""
    bound = math.sqrt(6 / sum(shape))
    return (2 * torch.rand(shape, generator=generator, device="cpu") - 1) * bound


# How parameters outside of the usual layers start, by the end of their name, as in torch and torchvision.
_OTHER: dict[str, Callable[[torch.Size, torch.Generator], Tensor]] = {
    "in_proj_weight": _attention_weight,
    "in_proj_bias": lambda shape, _: torch.zeros(shape, device="cpu"),
    "class_token": lambda shape, _: torch.zeros(shape, device="cpu"),
    "pos_embedding": lambda shape, generator: 0.02 * torch.randn(shape, generator=generator, device="cpu"),
    "layer_scale": lambda shape, _: torch.full(shape, 1e-6, device="cpu"),
}


def forward_training(
    state: ModelState, images: Tensor, *, differentiable: bool = True
) -> tuple[Tensor, Mapping[str, BatchStatistics]]:
    """Returns logits with batch normalisation in training mode, and the batch statistics by layer name.

    Without `differentiable` the statistics are constants; the logits can be differentiated all the same.
    """
    if not differentiable:
        return hold_network(state, lambda forward: forward(images))
    layers = batch_norm_layers(state.module)
    _set_training(True, state.module, *layers.values())
    with record_batch_statistics(layers) as statistics:
        return _call(state, images, state.weights), statistics


def hold_network(state: ModelState, run: Callable[[Forward], Result], *, frozen: bool = False) -> Result:
    """Returns `run` of a forward pass that is made ready once, and so costs less than one at a time.

    The pass returns what `forward_training` does without `differentiable`, or logits as `forward_frozen` and no
    statistics. The next pass overwrites the statistics. The network holds the weights of `state` themselves: a pass
    reads what `run` has written into them.
    """
    layers = batch_norm_layers(state.module)
    _set_training(not frozen, state.module, *layers.values())
    if frozen:
        return _hold(state, {**state.weights, **state.statistics}, lambda call: run(lambda images: (call(images), {})))
    with keep_batch_statistics(layers, state.statistics) as (buffers, seen):
        return _hold(state, {**state.weights, **buffers}, lambda call: run(lambda images: (call(images), seen)))


def forward_frozen(state: ModelState, images: Tensor) -> Tensor:
    """Returns logits with batch normalisation at the running statistics (evaluation mode)."""
    _set_training(False, state.module)
    return _call(state, images, {**state.weights, **state.statistics})


def measure_statistics(state: ModelState, images: Tensor, *, frozen: bool) -> Mapping[str, BatchStatistics]:
    """Returns the batch statistics of every layer's input in one forward pass, in training mode or `frozen`."""
    if not frozen:
        return forward_training(state, images)[1]
    with record_batch_statistics(batch_norm_layers(state.module)) as statistics:
        forward_frozen(state, images)
    return statistics


def _call(state: ModelState, images: Tensor, tensors: Tensors) -> Tensor:
    """Calls the network with `tensors`, and with copies of all other buffers."""
    return _hold(state, tensors, lambda call: call(images))


def _hold(state: ModelState, tensors: Tensors, run: Callable[[Callable[[Tensor], Tensor]], Result]) -> Result:
    """Calls `run` with the network while it holds `tensors`, and copies of all other buffers; returns its result.

    Layers may write into the copies, which start anew with every pass. Attention runs as plain matrix products: fused
    attention cannot be differentiated twice.
    """
    own = {name: value for name, value in state.module.named_buffers() if name not in tensors}
    copies = {name: value.clone() for name, value in own.items()}

    def call(images: Tensor) -> Tensor:
        for name, value in copies.items():
            value.copy_(own[name])
        return state.module(images)  # type: ignore[no-any-return]

    held = {f"network.{name}": value for name, value in {**copies, **tensors}.items()}
    with sdpa_kernel(SDPBackend.MATH):
        return functional_call(_Holder(state.module), held, (lambda: run(call),))  # type: ignore[no-any-return]


class _Holder(nn.Module):
    """Lets `functional_call` hold a network's tensors for as long as a function runs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, run: Callable[[], Result]) -> Result:
        return run()


def _set_training(training: bool, module: nn.Module, *layers: nn.Module) -> None:
    """Switches the mode of a module only if it, or one of `layers`, is in the other: that visits all layers."""
    if any(each.training != training for each in (module, *layers)):
        module.train(training)
