"""Registered models: facts that can be read without torch, and how to build each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leakpipe.params import ModelParams
from leakpipe.registry import Registry

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ModelEntry:
    """A model's facts and its builder.

    Attributes:
        has_batch_norm: Whether updates carry running statistics.
        build: `build(params, classes=..., image_size=...)` returns the architecture; its own tensors
            are placeholders, `leakpipe.models.state.initial_state` draws the real ones.
    """

    has_batch_norm: bool
    build: "Callable[..., nn.Module]"


MODELS: Registry[ModelEntry] = Registry("model")


def _build_convnet(params: ModelParams, *, classes: int, image_size: int) -> "nn.Module":
    from leakpipe.models.convnet import ConvNet

    return ConvNet(params.widths, params.strides, classes=classes, image_size=image_size)


MODELS.add("convnet-bn", ModelEntry(has_batch_norm=True, build=_build_convnet))
