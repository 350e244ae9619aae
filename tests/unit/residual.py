"""Shared by tests of recursive inversion: what a ResNet-20 makes of one face, and the network at its statistics."""

import torch
from skimage.data import lfw_subset
from torch import Tensor
from torch.nn.functional import interpolate

from leakpipe.attacks.observation import Observation
from leakpipe.attacks.recursive.forward import FixedNetwork
from leakpipe.attacks.recursive.reading import read_layers
from leakpipe.attacks.recursive.structure import read_chain
from leakpipe.models.state import ModelState, build_module, initial_state
from leakpipe.params.models import ModelParams
from tests.unit.attacking import observe


def faces(size: int) -> Tensor:
    """scikit-image's faces, shape (200, 1, size, size) in [0, 1]."""
    return interpolate(torch.from_numpy(lfw_subset()).float()[:, None], (size, size), mode="bicubic").clamp(0, 1)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def residual_network(size: int, *, normalization: str = "batch") -> ModelState:
    params = ModelParams(name="resnet20", normalization=normalization)
    return initial_state(build_module(params, classes=2, image_size=size), seed=0)


def observe_face(face: Tensor, prior: Tensor) -> Observation:
    """The update of one face, of an untrained network."""
    return observe(residual_network(face.shape[-1]), face, [1], prior=prior)


def fixed_network(observed: Observation) -> FixedNetwork:
    chain = read_chain(observed.before.module)
    return FixedNetwork(chain, read_layers(observed, chain), observed.before, torch.float32)
