"""A network as a list of layers that the double backward knows, or the sentence that names the one it does not know."""

import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from leakpipe.attacks.engines.double_backward.base import Layer, Linear, MaxPool, Preprocessing, Rectifier, Sum
from leakpipe.attacks.engines.double_backward.product import ConvolutionProduct, MatrixProduct
from leakpipe.attacks.engines.double_backward.weighted import Frozen, Normalized, Weighted
from leakpipe.attacks.engines.engine import UnfitError
from leakpipe.attacks.surrogate import surrogate_slope
from leakpipe.models.batchnorm import mean_name, variance_name
from leakpipe.models.preprocessing import normalize_input
from leakpipe.models.state import Tensors

Make = Callable[..., Layer]  # of the network's weights by parameter name, and of what the layer reads


@dataclass(frozen=True)
class Instruction:
    """One layer of a network in the order of its forward pass.

    Attributes:
        make: Runs the layer with the network's weights on what it reads.
        reads: The values that it reads: 0 is the network's input (`Program`), k the output of the k-th instruction.
        name: The module's name where it has parameters; else "".
    """

    make: Make
    reads: tuple[int, ...]
    name: str = ""


@dataclass(frozen=True)
class Program:
    """A network as a list of layers.

    Attributes:
        instructions: The layers, in the order of the forward pass.
        normalizes: Whether the network begins with `normalize_input`; its input is then the normalised images.
    """

    instructions: Sequence[Instruction]
    normalizes: bool


@dataclass(frozen=True, kw_only=True)
class Given:
    """Everything that a program's layers work with besides their weights.

    Attributes:
        running: Running statistics by buffer name that batch normalisation is frozen at; None in training mode. Of
            networks side by side they follow each other in the first dimension, as do weights.
        targets: Targets of the gradients, by parameter name, of the shapes of one network; parameters that are missing
            are not compared.
        formed: Whether gradients are needed as tensors.
        networks: How many are side by side.
    """

    running: Tensors | None
    targets: Tensors
    formed: bool
    networks: int


def compile_network(module: nn.Module, held: Collection[str], given: Given) -> Program:
    """The network's layers, with the targets of their gradients.

    A program of several networks runs all of them side by side: its input, values and output have the channels of the
    first, then those of the second, and so on.

    Args:
        held: Names of the parameters that a client trains.

    Raises:
        UnfitError: The double backward does not know one of its layers.
    """
    try:
        graph = _Tracer().trace(module)
    except (fx.proxy.TraceError, TypeError, ValueError) as error:
        raise UnfitError(f"the network's forward pass cannot be followed ({error})") from error
    layers, slope = dict(module.named_modules()), surrogate_slope(module)
    constants: dict[fx.Node, Tensor] = {}
    places: dict[fx.Node, int] = {}
    moves = [False]
    instructions: list[Instruction] = []
    normalizes = False
    for node in graph.nodes:
        if node.op == "placeholder":
            if places:
                raise UnfitError("the network reads more than images")
            places[node] = 0
            continue
        if node.op == "output":
            _check_output(node, places, len(instructions))
            continue
        if node.target is normalize_input:
            normalizes = _check_normalization(node, places)
            places[node] = 0
            continue
        if node.op == "get_attr":
            constants[node] = _buffer(module, str(node.target))
            continue
        read_nodes = tuple(read for read in node.all_input_nodes if read not in constants)
        reads = tuple(places[read] for read in read_nodes)
        moves.append(any(moves[read] for read in reads))
        name = ""
        if node.op == "call_module" and isinstance(layers[node.target], (nn.Conv2d, nn.Linear, nn.BatchNorm2d)):
            name = str(node.target)
            if any(step.name == name for step in instructions):
                raise UnfitError(f"it does not know layers with parameters that are used twice ({name})")
            moves[-1] = True
        if moves[-1] and node.op == "call_module":
            make = _module_layer(layers[node.target], name, given, slope=slope, moves=moves[reads[0]])
        elif moves[-1]:
            make = _function_layer(node, read_nodes, constants, given.networks, slope=slope)
        else:
            function = layers[node.target] if node.op == "call_module" else partial(_call, node, read_nodes, constants)
            make = _without_weights(partial(Preprocessing, _each(function, given.networks)))
        instructions.append(Instruction(make, reads, name))
        places[node] = len(instructions)
    _check_parameters(layers, held, {step.name for step in instructions if step.name})
    return Program(instructions, normalizes)


def _buffer(module: nn.Module, name: str) -> Tensor:
    """The value of a buffer that the forward pass reads itself."""
    buffer = dict(module.named_buffers()).get(name)
    if buffer is None or buffer.is_meta:
        raise UnfitError(f"it does not know parameters outside of layers ({name})")
    return buffer.detach()


def _check_parameters(layers: dict[str, nn.Module], held: Collection[str], names: Collection[str]) -> None:
    """Every parameter that a layer runs with must be trained, and every one that is trained belong to such a layer."""
    found = {f"{name}.{kind}" for name in names for kind, _ in layers[name].named_parameters()}
    other = sorted(found ^ set(held))
    if other:
        raise UnfitError(f"it does not know parameters that are frozen, shared, or not read by a layer ({other[0]})")


def _check_normalization(node: fx.Node, places: dict[fx.Node, int]) -> bool:
    (read,) = node.all_input_nodes
    if places[read] != 0 or len(read.users) > 1:
        raise UnfitError("the network normalises something else than all that it reads")
    return True


def _check_output(node: fx.Node, places: dict[fx.Node, int], last: int) -> None:
    if not isinstance(node.args[0], fx.Node) or places.get(node.args[0]) != last:
        raise UnfitError("the network returns something else than its last layer's output")


class _Tracer(fx.Tracer):
    """Follows a network down to the layers that the double backward knows, and to torchvision's preprocessing."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=(normalize_input,))

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = super().is_leaf_module(m, module_qualified_name)
        return known or type(m).__module__.startswith("torchvision.transforms")


LINEAR_MODULES = (nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.Flatten, nn.Identity)
LINEAR_FUNCTIONS = (
    torch.flatten,
    torch.cat,
    nn.functional.pad,
    nn.functional.adaptive_avg_pool2d,
    nn.functional.avg_pool2d,
    operator.getitem,
)
LINEAR_METHODS = ("flatten", "mean", "view", "reshape")


def _module_layer(layer: nn.Module, name: str, given: Given, *, slope: float, moves: bool) -> Make:
    """The way in which a module of the network is run."""
    if isinstance(layer, nn.Conv2d):
        plain = layer.groups == 1 and layer.dilation == (1, 1) and layer.padding_mode == "zeros"
        if not plain or isinstance(layer.padding, str):
            raise UnfitError(f"it knows convolutions without groups and dilation and with zeros as padding ({name})")
    if isinstance(layer, nn.BatchNorm2d) and not (layer.affine and layer.track_running_stats):
        raise UnfitError(f"it knows batch normalisation with weights and running statistics ({name})")
    if isinstance(layer, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
        if isinstance(layer, nn.BatchNorm2d):
            if given.running is None:
                return _with_weights(partial(Normalized, epsilon=layer.eps), name)
            mean, variance = given.running[mean_name(name)], given.running[variance_name(name)]
            return _with_weights(partial(Frozen, mean=mean, inverse=(variance + layer.eps).rsqrt()), name)
        kind = ConvolutionProduct if isinstance(layer, nn.Conv2d) else MatrixProduct
        product = kind(layer, given.networks)  # type: ignore[arg-type]
        target = given.targets.get(f"{name}.weight")
        return _with_weights(partial(Weighted, product, target=target, formed=given.formed, moves=moves), name)
    if isinstance(layer, nn.ReLU):
        return _without_weights(partial(Rectifier, slope=slope))
    if isinstance(layer, nn.MaxPool2d):
        return _without_weights(partial(MaxPool, layer))
    if isinstance(layer, LINEAR_MODULES) or (isinstance(layer, nn.Dropout) and layer.p == 0):
        return _without_weights(partial(Linear, _each(layer, given.networks)))
    raise UnfitError(f"it does not know layers of kind {type(layer).__name__}")


def _function_layer(
    node: fx.Node, reads: Sequence[fx.Node], constants: Mapping[fx.Node, Tensor], networks: int, *, slope: float
) -> Make:
    """The way in which a function that the network calls is run."""
    if (
        node.target in (operator.add, operator.iadd, torch.add)
        and len(reads) == len(node.args) == 2
        and not node.kwargs
    ):
        return _without_weights(Sum)
    if node.target in (nn.functional.relu, torch.relu) or (node.op == "call_method" and node.target == "relu"):
        return _without_weights(partial(Rectifier, slope=slope))
    known = node.target in (LINEAR_METHODS if node.op == "call_method" else LINEAR_FUNCTIONS)
    if not known:
        raise UnfitError(f"it does not know calls of {getattr(node.target, '__name__', node.target)}")
    return _without_weights(partial(Linear, _each(partial(_call, node, reads, constants), networks)))


def _with_weights(make: Callable[..., Layer], name: str) -> Make:
    """A layer that has the parameters of the module `name`."""
    return lambda weights, *features: make(
        *features, weight=weights[f"{name}.weight"], bias=weights.get(f"{name}.bias")
    )


def _without_weights(make: Callable[..., Layer]) -> Make:
    return lambda _, *features: make(*features)


def _each(function: Callable[..., Tensor], networks: int) -> Callable[..., Tensor]:
    """The function on each of the networks side by side, as if their images were more images of one."""
    if networks == 1:
        return function

    def on_all(*values: Tensor) -> Tensor:
        found = function(*(value.unflatten(1, (networks, -1)).flatten(0, 1) for value in values))
        return found.view(-1, networks, *found.shape[1:]).flatten(1, 2)

    return on_all


def _call(node: fx.Node, reads: Sequence[fx.Node], constants: Mapping[fx.Node, Tensor], *values: Tensor) -> Tensor:
    """The node's function of what it reads, its other arguments as they are in the network."""
    given = {**constants, **dict(zip(reads, values, strict=True))}
    arguments = fx.node.map_arg(node.args, given.__getitem__)
    named: dict[str, Any] = fx.node.map_arg(node.kwargs, given.__getitem__)
    if node.op == "call_method":
        return getattr(arguments[0], str(node.target))(*arguments[1:], **named)  # type: ignore[no-any-return]
    return node.target(*arguments, **named)  # type: ignore[operator, no-any-return]
