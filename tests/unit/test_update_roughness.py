"""Noise in the true image moves the update far: why deep networks are hard to invert (docs/attacks/results.md)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import cosine_similarity

from leakpipe.client.batches import Batch
from leakpipe.client.local_update import LocalSettings, local_update
from leakpipe.data.datasets import DATASETS
from leakpipe.models.state import build_module, initial_state
from leakpipe.params.data import ImagesParams
from leakpipe.params.models import ModelParams

CLIENT = LocalSettings(learning_rate=0.01)
NOISES = (0.005, 0.02, 0.1)
DRAWS = 3


def update_vector(model: str, size: int, image: torch.Tensor, *, seed: int) -> torch.Tensor:
    state = initial_state(build_module(ModelParams(name=model), classes=2, image_size=size), seed=seed)
    update = local_update(state, [Batch(image[None], torch.tensor([0]))], CLIENT)
    return torch.cat([value.double().flatten() for value in update.weights.values()])


def distances(model: str, size: int) -> Sequence[float]:
    """1 − cosine between the update of a face and that of the same face with noise, mean over draws, per noise."""
    faces = torch.from_numpy(DATASETS["lfw-faces"].load(ImagesParams(dataset="lfw-faces", image_size=size)).images)
    rows = []
    for seed in range(DRAWS):
        face, generator = faces[seed], torch.Generator().manual_seed(seed)
        truth = update_vector(model, size, face, seed=seed)
        moved = [(face + noise * torch.randn(face.shape, generator=generator)).clamp(0, 1) for noise in NOISES]
        updates = [update_vector(model, size, image, seed=seed) for image in moved]
        rows.append([1 - float(cosine_similarity(truth, update, dim=0)) for update in updates])
    return [float(value) for value in np.mean(rows, axis=0)]


def test_the_deeper_the_network_the_rougher_its_update() -> None:
    rough = {model: distances(model, size) for model, size in [("convnet-bn", 32), ("resnet20", 32), ("resnet18", 64)]}
    for model, values in rough.items():
        print(model, " ".join(f"noise {noise}: {value:.2f}" for noise, value in zip(NOISES, values, strict=True)))
    smallest = [values[0] for values in rough.values()]
    assert smallest[0] < 0.1 < smallest[1] < 0.5 < smallest[2]
