"""Batch normalisation of any network: its layers, and the batch statistics that they normalise with.

torch's layers update their running statistics in place, outside autograd. Here the same layers run unmodified, but a
forward pass returns the batch statistics instead, and `update_running` computes new running statistics from them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from leakpipe.models.normalize import normalize_batch

TORCHS = nn.modules.batchnorm._BatchNorm.forward
EXACT = (torch.float32, torch.float64)  # others are normalised in single precision
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@dataclass(frozen=True)
class BatchStatistics:
    """Mean and variance that one layer normalised with in one forward pass.

    Attributes:
        mean: Per channel, shape (channels,).
        variance: Per channel and UNBIASED, shape (channels,): what torch keeps in `running_var`,
            though it normalises with the biased one.
        values: Number of values per channel; None where it is unknown or the statistics are not of one batch.
    """

    mean: Tensor
    variance: Tensor
    values: int | None = None

    @classmethod
    def of(cls, values: Tensor) -> "BatchStatistics":
        """Returns the statistics of a layer's input of shape (batch, channels, …), differentiable in it.

        Raises `ValueError` for a single value per channel, which has no variance.
        """
        count = values_per_channel(values)
        if values.dtype in (torch.bfloat16, torch.float16):
            values = values.float()  # as torch's own batch normalisation of such values
        variance, mean = torch.var_mean(values, dim=(0, *range(2, values.dim())), correction=0)
        return cls(mean, variance * (count / (count - 1)), count)

    def with_biased_variance(self) -> "BatchStatistics":
        """Returns the same with the variance that torch normalises with: divided by `values`, not by one less."""
        if self.values is None:
            raise ValueError("only statistics of one batch have a biased variance")
        return replace(self, variance=self.variance * ((self.values - 1) / self.values))


def values_per_channel(values: Tensor) -> int:
    """Returns the number of values per channel of a tensor of shape (batch, channels, …).

    Raises `ValueError` for a single value, which has no variance.
    """
    count = values.numel() // values.shape[1]
    if count < 2:
        raise ValueError(f"batch normalisation needs 2 values per channel to train, got {count}")
    return count


def mean_name(layer: str) -> str:
    """Returns the name of a batch-normalisation layer's running mean."""
    return f"{layer}.running_mean"


def variance_name(layer: str) -> str:
    """Returns the name of a batch-normalisation layer's running variance."""
    return f"{layer}.running_var"


def batch_norm_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Returns the batch-normalisation layers that keep running statistics, by name, in the order of the module."""
    return {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, BATCH_NORMS) and layer.track_running_stats
    }


def batch_norm_names(module: nn.Module) -> set[str]:
    """Returns the names of all tensors of batch normalisation: weights, biases, running statistics."""
    kinds = ("weight", "bias", "running_mean", "running_var")
    return {f"{layer}.{kind}" for layer in batch_norm_layers(module) for kind in kinds}


def update_running(
    running: Mapping[str, Tensor], seen: Mapping[str, BatchStatistics], momentum: float
) -> dict[str, Tensor]:
    """Returns running statistics after one more batch: (1 − m)·running + m·batch, with its UNBIASED variance."""
    updated = dict(running)
    for layer, batch in seen.items():
        for name, value in ((mean_name(layer), batch.mean), (variance_name(layer), batch.variance)):
            updated[name] = (1 - momentum) * running[name] + momentum * value
    return updated


@contextmanager
def record_batch_statistics(layers: Mapping[str, nn.Module]) -> Iterator[dict[str, BatchStatistics]]:
    """Collects the batch statistics of the layers' inputs in the forward pass made inside the block, in either mode.

    They are differentiable. Running statistics are not updated.
    """
    statistics: dict[str, BatchStatistics] = {}

    def recording(name: str, layer: nn.Module) -> Callable[[Tensor], Tensor]:
        forward, as_torch = layer.forward, getattr(layer.forward, "__func__", None) is TORCHS

        def run(values: Tensor) -> Tensor:
            if not (as_torch and layer.training and values.dtype in EXACT):
                statistics[name] = BatchStatistics.of(values)
                return forward(values)  # type: ignore[no-any-return]
            count = values_per_channel(values)
            output, mean, variance = normalize_batch(values, layer.weight, layer.bias, layer.eps)  # type: ignore[arg-type]
            statistics[name] = BatchStatistics(mean, variance, count)
            return output

        return run

    own = {name: vars(layer).get("forward") for name, layer in layers.items()}
    try:
        with _changed(layers.values(), track_running_stats=False):
            for name, layer in layers.items():
                layer.forward = recording(name, layer)
            yield statistics
    finally:
        for name, layer in layers.items():
            if own[name] is None:
                vars(layer).pop("forward", None)
            else:
                vars(layer)["forward"] = own[name]


@contextmanager
def keep_batch_statistics(
    layers: Mapping[str, nn.Module], running: Mapping[str, Tensor]
) -> Iterator[tuple[dict[str, Tensor], dict[str, BatchStatistics]]]:
    """Lets torch's kernels write the batch statistics into new buffers, as constants, at no extra cost.

    At momentum 1 the running statistics become those of the batch.

    Args:
        running: Running statistics of the layers by name; they do not change.

    Yields:
        Buffers by name for the forward pass in training mode, and the statistics that it writes into them.
    """
    buffers = {
        name: torch.zeros_like(running[name]) for layer in layers for name in (mean_name(layer), variance_name(layer))
    }
    found = {layer: BatchStatistics(buffers[mean_name(layer)], buffers[variance_name(layer)]) for layer in layers}
    counter = torch.zeros((), dtype=torch.long, device="cpu")
    counters = {f"{layer}.num_batches_tracked": counter for layer in layers}
    with _changed(layers.values(), momentum=1.0):
        yield {**buffers, **counters}, found


@contextmanager
def _changed(layers: Iterable[nn.Module], **settings: Any) -> Iterator[None]:
    """Sets attributes of layers to other values until the block ends."""
    before = [(vars(layer), {name: vars(layer)[name] for name in settings}) for layer in layers]
    for attributes, _ in before:
        attributes.update(settings)
    try:
        yield
    finally:
        for attributes, values in before:
            attributes.update(values)
