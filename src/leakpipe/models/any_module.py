"""Any `torch.nn.Module` as an architecture: without its wrappers, as a copy, with its dropout named or switched off."""

import copy
import re
from collections.abc import Iterator

from torch import Tensor, nn

from leakpipe.errors import LeakpipeError

WRAPPERS = ("module", "_module", "_orig_mod")  # of torch's parallel modules, Opacus, torch.compile
# Attributes that layers of torch, torchvision, timm and transformers keep a probability of dropout in.
PROBABILITIES = ("dropout", "dropout_p", "attention_dropout", "drop_prob", "drop_rate")
DROPS = re.compile("drop|StochasticDepth", re.IGNORECASE)  # classes that keep it in `p`


class Hardsigmoid(nn.Module):
    """`torch.nn.Hardsigmoid` in functions that torch can differentiate twice."""

    def forward(self, input: Tensor) -> Tensor:
        """min(max(input + 3, 0), 6) / 6."""
        return nn.functional.relu6(input + 3) / 6


def copy_network(module: nn.Module) -> nn.Module:
    """Returns a copy of a network in training mode, freed of the wrappers of data parallelism, Opacus and compilers.

    Raises:
        LeakpipeError: The network has parameters without a shape, none that are trained, or cannot be copied.
    """
    while _is_wrapper(module):
        (module,) = module.children()
    for name, parameter in module.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise LeakpipeError(
                f"model: {name!r} has no shape yet, expected one; pass a batch through the network first"
            )
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise LeakpipeError(
            "model: no parameter requires a gradient, expected those that the client trained; set requires_grad"
        )
    try:
        copied = copy.deepcopy(module).train()
    except (TypeError, RuntimeError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise LeakpipeError(
            f"model: {type(module).__name__} cannot be copied ({reason}), expected a module that copy.deepcopy takes"
        ) from error
    for parent in list(copied.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, nn.Hardsigmoid):
                setattr(parent, name, Hardsigmoid())
    return copied


def copy_layers(module: nn.Module) -> nn.Module:
    """Returns a copy of a network's layers that shares its tensors."""
    tensors = [*module.parameters(), *module.buffers()]
    return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})


def active_dropout(module: nn.Module) -> list[str]:
    """Returns each layer's attribute with a probability of dropout above 0, as "classifier.2.p = 0.5"."""
    found = [(f"{name}.{kind}".lstrip("."), getattr(layer, kind)) for name, layer, kind in _probabilities(module)]
    return [f"{place} = {value:g}" for place, value in found]


def switch_off_dropout(module: nn.Module) -> None:
    """Sets all probabilities of dropout that `active_dropout` finds to 0."""
    for _, layer, kind in _probabilities(module):
        setattr(layer, kind, 0.0)


def _probabilities(module: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    for name, layer in module.named_modules():
        kinds = (*PROBABILITIES, "p") if DROPS.search(type(layer).__name__) else PROBABILITIES
        for kind in kinds:
            value = getattr(layer, kind, None)
            if isinstance(value, int | float) and value > 0:
                yield name, layer, kind


def _is_wrapper(module: nn.Module) -> bool:
    names = [name for name, _ in module.named_children()]
    outside = type(module).__module__.startswith(("torch.", "opacus."))
    return outside and len(names) == 1 and names[0] in WRAPPERS
