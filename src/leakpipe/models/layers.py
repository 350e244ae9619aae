"""The inputs of a network's layers, and its head: the last linear layer, which tells the classes apart."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from leakpipe.errors import LeakpipeError
from leakpipe.models.state import ModelState


def head_layer(state: ModelState) -> str:
    """Returns the name of the model's last linear layer; `LeakpipeError` if it has none with a bias."""
    heads: list[str] = [
        name for name, layer in state.module.named_modules() if isinstance(layer, nn.Linear) and layer.bias is not None
    ]
    if not heads:
        raise LeakpipeError("the model has no linear layer with a bias, expected one that labels are read from")
    return heads[-1]


def count_classes(state: ModelState) -> int:
    """Returns the number of classes that the model's head tells apart."""
    return len(state.weights[f"{head_layer(state)}.bias"])


@contextmanager
def record_layer_inputs(module: nn.Module, names: Iterable[str]) -> Iterator[dict[str, list[Tensor]]]:
    """Collects what the named layers read in every forward pass made inside the block, by layer name."""
    seen: dict[str, list[Tensor]] = {name: [] for name in names}
    layers = dict(module.named_modules())
    handles = [
        layers[name].register_forward_pre_hook(lambda _layer, inputs, kept=kept: kept.append(inputs[0]))
        for name, kept in seen.items()
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
