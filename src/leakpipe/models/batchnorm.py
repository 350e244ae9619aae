"""Batch normalisation whose batch statistics can be read and differentiated.

torch's layer updates its running statistics in place, outside autograd. Here the layer normalises and,
inside `record_batch_statistics`, hands out the statistics it normalised with; who trains decides what
becomes of them (`leakpipe.federation.local`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class BatchStatistics:
    """What one layer saw in one forward pass.

    Attributes:
        mean: Per channel, shape (channels,).
        variance: Per channel and UNBIASED, shape (channels,): what torch keeps in `running_var`,
            though it normalises with the biased one.
    """

    mean: Tensor
    variance: Tensor


class BatchNorm2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` that never touches its running statistics.

    In training mode it normalises with the batch's mean and biased variance, in evaluation mode with
    the running ones, exactly as torch's layer. Raises `ValueError` for one value per channel in
    training mode, which has no variance.
    """

    seen: BatchStatistics | None = None

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `input` of shape (batch, channels, height, width)."""
        if self.training:
            values = input.numel() // input.shape[1]
            if values < 2:
                raise ValueError(f"batch normalisation needs 2 values per channel to train, got {values}")
            variance, mean = torch.var_mean(input, dim=(0, 2, 3), correction=0)
            self.seen = BatchStatistics(mean, variance * (values / (values - 1)))
            return nn.functional.batch_norm(input, None, None, self.weight, self.bias, True, 0.0, self.eps)
        return nn.functional.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )


@contextmanager
def record_batch_statistics(module: nn.Module) -> Iterator[dict[str, BatchStatistics]]:
    """Collect, by layer name, the batch statistics of the forward pass made inside the block.

    The dictionary is filled when the block ends; nothing stays behind in the module (a kept tensor
    would keep its whole graph alive).
    """
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, BatchNorm2d)}
    statistics: dict[str, BatchStatistics] = {}
    try:
        yield statistics
        for name, layer in layers.items():
            if layer.seen is not None:
                statistics[name] = layer.seen
    finally:
        for layer in layers.values():
            layer.seen = None
