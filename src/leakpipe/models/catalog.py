"""Registered models: facts that can be read without torch, and how to build each."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leakpipe.params_models import ModelParams
from leakpipe.registry import Registry

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ModelEntry:
    """A model's facts and its builder.

    Attributes:
        has_batch_norm: Whether updates carry running statistics.
        reduction: `reduction(params)` is how many times smaller than the image the last feature map is, in
            height as in width (rounded up to whole pixels).
        build: `build(params, classes=..., image_size=...)` returns the architecture; its own tensors
            are placeholders, `leakpipe.models.state.initial_state` draws the real ones.
    """

    has_batch_norm: bool
    reduction: Callable[[ModelParams], int]
    build: "Callable[..., nn.Module]"


MODELS: Registry[ModelEntry] = Registry("model")


def _build_convnet(params: ModelParams, *, classes: int, image_size: int) -> "nn.Module":
    from leakpipe.models.convnet import ConvNet

    return ConvNet(params.widths or (), params.strides or (), classes=classes, image_size=image_size)


def _build_resnet18(params: ModelParams, *, classes: int, image_size: int) -> "nn.Module":  # noqa: ARG001 any size
    from leakpipe.models.resnet18 import ResNet18

    return ResNet18(classes=classes)


def _build_resnet20(params: ModelParams, *, classes: int, image_size: int) -> "nn.Module":  # noqa: ARG001 any size
    from leakpipe.models.resnet20 import ResNet20

    return ResNet20(classes=classes)


MODELS.add(
    "convnet-bn",
    ModelEntry(has_batch_norm=True, reduction=lambda params: math.prod(params.strides or ()), build=_build_convnet),
)
MODELS.add("resnet18", ModelEntry(has_batch_norm=True, reduction=lambda _: 32, build=_build_resnet18))
MODELS.add("resnet20", ModelEntry(has_batch_norm=True, reduction=lambda _: 4, build=_build_resnet20))
