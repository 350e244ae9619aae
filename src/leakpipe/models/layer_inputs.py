"""What named layers read while a model runs."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn


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
