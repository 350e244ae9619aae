"""The layer that tells a model's classes apart."""

from torch import nn

from leakpipe.errors import LeakpipeError
from leakpipe.models.state import ModelState


def head_layer(state: ModelState) -> str:
    """Name of the model's last linear layer; `LeakpipeError` if it has none with a bias."""
    heads: list[str] = [
        name for name, layer in state.module.named_modules() if isinstance(layer, nn.Linear) and layer.bias is not None
    ]
    if not heads:
        raise LeakpipeError("the model has no linear layer with a bias, which labels and classes are read from")
    return heads[-1]


def count_classes(state: ModelState) -> int:
    """Classes that the model's head tells apart."""
    return len(state.weights[f"{head_layer(state)}.bias"])
