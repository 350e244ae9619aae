"""Registered models: facts that need no torch, and how to build each."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from leakpipe.models.choices import starting_weights
from leakpipe.models.weights import find_weights
from leakpipe.params.models import ArchitectureParams, ModelParams
from leakpipe.registry import Registry

if TYPE_CHECKING:
    from torch import nn

    from leakpipe.models.normalization import Normalization


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """Facts about a model, and its builder.

    Attributes:
        lone_size: `lone_size(params)` is the height and width in pixels of the largest image that leaves some
            normalisation layer only one value per channel.
        least_size: Height and width in pixels of the smallest image that the model accepts.
        axes: 2 for images, 3 for volumes.
        multiple: Height and width must be a multiple of it, in pixels.
        published: Keys of `leakpipe.models.weights.WEIGHTS` by the names that `model.weights` gives them.
        build: `build(params, normalization, classes, image_size)` returns the architecture; `normalization(channels)`
            makes a layer. Its own tensors are never read: `leakpipe.models.state.initial_state` draws them.
    """

    lone_size: Callable[[ArchitectureParams], int]
    least_size: int = 1
    axes: int = 2
    multiple: int = 1
    published: Mapping[str, str] = field(default_factory=dict)
    build: "Callable[..., nn.Module]"


MODELS: Registry[ModelEntry] = Registry("model")


def require_model_weights(params: ModelParams) -> None:
    """Raises `LeakpipeError` where the network starts from published weights that are not on this machine."""
    published = MODELS[params.name].published.get(starting_weights(params))
    if published:
        find_model_weights(published)


def find_model_weights(published: str) -> Path:
    """Returns the path of a model's published weights; `LeakpipeError` says how to get them or do without."""
    instead = "; or set model.weights to random, public or the path of a file"
    return find_weights(published, field="model.weights", instead=instead)


def _build_convnet(params: ArchitectureParams, normalization: "Normalization", classes: int, size: int) -> "nn.Module":
    from leakpipe.models.convnet import ConvNet

    return ConvNet(
        params.widths or (), params.strides or (), normalization=normalization, classes=classes, image_size=size
    )


def _build_resnet20(_: ArchitectureParams, normalization: "Normalization", classes: int, _size: int) -> "nn.Module":
    from leakpipe.models.resnet20 import ResNet20

    return ResNet20(normalization=normalization, classes=classes)


def _build_preactivation(
    _: ArchitectureParams, normalization: "Normalization", classes: int, _size: int
) -> "nn.Module":
    from leakpipe.models.preactivation import PreactivationResNet18

    return PreactivationResNet18(normalization=normalization, classes=classes)


def _build_convnet3d(
    params: ArchitectureParams, normalization: "Normalization", classes: int, size: int
) -> "nn.Module":
    from torch.nn import BatchNorm3d

    from leakpipe.models.convnet3d import ConvNet3d

    if params.normalization == "batch":
        normalization = BatchNorm3d
    return ConvNet3d(normalization=normalization, classes=classes, image_size=size)


def _build_torchvision(
    params: ArchitectureParams, normalization: "Normalization", classes: int, size: int
) -> "nn.Module":
    from leakpipe.models.torchvision_network import TorchvisionNetwork

    return TorchvisionNetwork(params.name, normalization=normalization, classes=classes, image_size=size)


MODELS.add("convnet-bn", ModelEntry(lone_size=lambda params: math.prod(params.strides or ()), build=_build_convnet))
MODELS.add("convnet3d", ModelEntry(lone_size=lambda _: 4, axes=3, build=_build_convnet3d))
MODELS.add("resnet20", ModelEntry(lone_size=lambda _: 4, build=_build_resnet20))
MODELS.add("preact_resnet18", ModelEntry(lone_size=lambda _: 8, build=_build_preactivation))
for _name in ("resnet18", "resnet34", "resnet50"):
    _published = {"imagenet": f"imagenet-{_name}"} | ({"augnet": "imgsim-resnet50"} if _name == "resnet50" else {})
    MODELS.add(_name, ModelEntry(lone_size=lambda _: 32, published=_published, build=_build_torchvision))
# Their pooling layers drop the remainder of a feature map, so the last map shrinks to one pixel, or none, sooner.
MODELS.add(
    "densenet121",
    ModelEntry(
        lone_size=lambda _: 60,
        least_size=29,
        published={"imagenet": "imagenet-densenet121"},
        build=_build_torchvision,
    ),
)
MODELS.add(
    "vgg11_bn",
    ModelEntry(
        lone_size=lambda _: 31, least_size=32, published={"imagenet": "imagenet-vgg11_bn"}, build=_build_torchvision
    ),
)
MODELS.add("convnext_tiny", ModelEntry(lone_size=lambda _: 0, least_size=32, build=_build_torchvision))
MODELS.add("vit_tiny", ModelEntry(lone_size=lambda _: 0, least_size=16, multiple=16, build=_build_torchvision))
MODELS.add("vit_b_32", ModelEntry(lone_size=lambda _: 0, least_size=32, multiple=32, build=_build_torchvision))
