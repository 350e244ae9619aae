"""Batch normalisation whose batch statistics can be read and differentiated.

torch's layer updates its running statistics in place, outside autograd. Here the layer normalises and,
inside `record_batch_statistics`, hands out the statistics it normalised with; who trains decides what
becomes of them (`leakpipe.client.local_update`).

Statistics that are to be differentiated are computed apart, a second pass over the layer's input; plain training
takes those that torch's kernel computes anyway.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class BatchStatistics:
    """What one layer saw in one forward pass.

    Attributes:
        mean: Per channel, shape (channels,).
        variance: Per channel and UNBIASED, shape (channels,): what torch keeps in `running_var`,
            though it normalises with the biased one.
        values: How many values per channel that is over; None where it is not of one batch.
    """

    mean: Tensor
    variance: Tensor
    values: int | None = None

    @classmethod
    def of(cls, values: Tensor) -> "BatchStatistics":
        """Statistics of a layer's input of shape (batch, channels, height, width).

        Raises `ValueError` for one value per channel, which has no variance.
        """
        count = values_per_channel(values)
        variance, mean = torch.var_mean(values, dim=(0, 2, 3), correction=0)
        return cls(mean, variance * (count / (count - 1)), count)

    def with_biased_variance(self) -> "BatchStatistics":
        """The same with the variance that torch normalises with: divided by `values`, not by one less."""
        if self.values is None:
            raise ValueError("only statistics of one batch have a biased variance")
        return replace(self, variance=self.variance * ((self.values - 1) / self.values))


def values_per_channel(values: Tensor) -> int:
    """How many values of each channel there are to normalise, of shape (batch, channels, height, width).

    Raises `ValueError` for one, which has no variance.
    """
    count = values.numel() // values.shape[1]
    if count < 2:
        raise ValueError(f"batch normalisation needs 2 values per channel to train, got {count}")
    return count


class BatchNorm2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` that never touches its running statistics.

    In training mode it normalises with the batch's mean and biased variance, in evaluation mode with
    the running ones, exactly as torch's layer. Raises `ValueError` for one value per channel in
    training mode, which has no variance.
    """

    seen: BatchStatistics | None = None
    recording: Literal["no", "differentiable", "values"] = "no"

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `input` of shape (batch, channels, height, width)."""
        if self.recording == "values" and self.training:
            mean, variance = input.new_zeros(2, self.num_features)
            normalised = nn.functional.batch_norm(input, mean, variance, self.weight, self.bias, True, 1.0, self.eps)
            self.seen = BatchStatistics(mean, variance, input.numel() // self.num_features)
            return normalised
        if self.recording != "no":
            self.seen = BatchStatistics.of(input)
        if self.training:
            return nn.functional.batch_norm(input, None, None, self.weight, self.bias, True, 0.0, self.eps)
        return nn.functional.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )


@contextmanager
def record_batch_statistics(module: nn.Module, *, differentiable: bool = True) -> Iterator[dict[str, BatchStatistics]]:
    """Collect, by layer name, the batch statistics of the forward pass made inside the block, in either mode.

    Without `differentiable` they are constants, and in training mode cost nothing.

    The dictionary is filled when the block ends; nothing stays behind in the module (a kept tensor
    would keep its whole graph alive).
    """
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, BatchNorm2d)}
    statistics: dict[str, BatchStatistics] = {}
    for layer in layers.values():
        layer.recording = "differentiable" if differentiable else "values"
    try:
        yield statistics
        for name, layer in layers.items():
            if layer.seen is not None:
                statistics[name] = layer.seen
    finally:
        for layer in layers.values():
            layer.seen, layer.recording = None, "no"
