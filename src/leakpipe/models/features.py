"""What layers of a model read."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from leakpipe.models.state import ModelState, forward_frozen


@contextmanager
def record_layer_inputs(module: nn.Module, names: Iterable[str]) -> Iterator[dict[str, list[Tensor]]]:
    """Collect what the named layers read in every forward pass made inside the block, by layer name."""
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


@torch.no_grad()
def penultimate_features(state: ModelState, images: Tensor) -> Tensor:
    """What the model's last linear layer reads, with batch normalisation at the running statistics.

    Args:
        state: A model that ends in a linear layer, as all registered ones do.
        images: Shape (batch, 1 or 3, height, width), values in [0, 1].

    Returns:
        Shape (batch, features).
    """
    *_, last = (name for name, layer in state.module.named_modules() if isinstance(layer, nn.Linear))
    with record_layer_inputs(state.module, [last]) as read:
        forward_frozen(state, images)
    return read[last][0]
