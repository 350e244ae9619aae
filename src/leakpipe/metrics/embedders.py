"""Embedders: images to vectors, in which the Euclidean distance says how alike two images are.

Where likeness is the cosine, vectors have unit length: Euclidean distance then orders them as the cosine does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from leakpipe.errors import LeakpipeError
from leakpipe.models.features import penultimate_features
from leakpipe.models.preprocessing import normalize_input
from leakpipe.models.pretrained import read_published
from leakpipe.models.state import ModelState
from leakpipe.models.weights import find_weights
from leakpipe.registry import Registry

if TYPE_CHECKING:
    from torch import nn

Embed = Callable[[np.ndarray], np.ndarray]
BATCH = 32  # images that go through a network at once

IMAGENET_SIZE = 224  # pixels that torchvision's weights were trained at
IMGSIM_SIZE = 350  # pixels that the package resizes to


@dataclass(frozen=True)
class Embedder:
    """A way to embed images.

    Attributes:
        uses_global_model: Whether `build` needs the global model that the attacked update was computed on.
        build: `build(state)` returns a function from images, float32 of shape (images, channels, height, width) with
            values in [0, 1], to vectors, float32 of shape (images, features).
    """

    uses_global_model: bool
    build: Callable[[ModelState | None], Embed]


EMBEDDERS: Registry[Embedder] = Registry("embedder")


def _pixels(_state: ModelState | None) -> Embed:
    """The pixels themselves: the nearest image is the one with the smallest mean squared error."""
    return lambda images: images.reshape(len(images), -1)


def _pixel_correlation(_state: ModelState | None) -> Embed:
    """Pixels without brightness and contrast, which training-mode batch normalisation makes nearly unobservable."""

    def embed(images: np.ndarray) -> np.ndarray:
        flat = images.reshape(len(images), -1)
        return _unit_length(flat - flat.mean(axis=1, keepdims=True))

    return embed


def _global_model(state: ModelState | None) -> Embed:
    """Features that the global model's last layer reads, in evaluation mode, compared by cosine."""
    if state is None:
        raise LeakpipeError("embedder 'global-model' needs the global model of the attacked round")
    return lambda images: _unit_length(_in_batches(images, lambda batch: penultimate_features(state, batch)))


def _imagenet_resnet50(_state: ModelState | None) -> Embed:
    """The paper's: pooled features of a ResNet-50 trained on ImageNet, compared by cosine."""
    network = _load_resnet50("imagenet-resnet50", classes=1000, prefix="")
    network.fc = torch.nn.Identity()
    return lambda images: _unit_length(_in_batches(images, lambda batch: network(_resized(batch, IMAGENET_SIZE))))


def _imgsim_resnet50(_state: ModelState | None) -> Embed:
    """AugNet's self-supervised ResNet-50 as the package imgsim runs it: 768 outputs through tanh, not normalised."""
    network = _load_resnet50("imgsim-resnet50", classes=768, prefix="module.pre.")
    return lambda images: _in_batches(images, lambda batch: network(_resized(batch, IMGSIM_SIZE)).tanh())


EMBEDDERS.add("pixels", Embedder(uses_global_model=False, build=_pixels))
EMBEDDERS.add("pixel-correlation", Embedder(uses_global_model=False, build=_pixel_correlation))
EMBEDDERS.add("global-model", Embedder(uses_global_model=True, build=_global_model))
EMBEDDERS.add("imagenet-resnet50", Embedder(uses_global_model=False, build=_imagenet_resnet50))
EMBEDDERS.add("imgsim-resnet50", Embedder(uses_global_model=False, build=_imgsim_resnet50))


def _load_resnet50(name: str, *, classes: int, prefix: str) -> "nn.Module":
    """Torchvision's ResNet-50 in evaluation mode with published weights, whose names start with `prefix`."""
    from torchvision.models import resnet50

    tensors = read_published(name, find_weights(name, field="identifiability.embedders"))
    try:
        with torch.device("meta"):  # no random initialisation that would touch torch's global generator
            network: nn.Module = resnet50(weights=None, num_classes=classes)
        named = {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}
        network.load_state_dict(named, assign=True)
    except RuntimeError as error:
        raise LeakpipeError(f"the weights of embedder {name!r} are not those of a ResNet-50") from error
    return network.eval()


def _resized(images: Tensor, size: int) -> Tensor:
    """Network input: the whole image at `size` × `size` pixels, gray repeated to 3 channels, ImageNet-normalised."""
    return normalize_input(interpolate(images, (size, size), mode="bilinear", antialias=True))


@torch.no_grad()
def _in_batches(images: np.ndarray, embed: Callable[[Tensor], Tensor]) -> np.ndarray:
    batches = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)).split(BATCH)
    return torch.cat([embed(batch) for batch in batches]).numpy()


def _unit_length(vectors: np.ndarray) -> np.ndarray:
    """Scale each vector to length 1; a vector of zeros, which has no direction, stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)
