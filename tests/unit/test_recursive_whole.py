"""Recursive inversion from an observation to the image, and what it refuses."""

import pytest
import torch

from leakpipe.attacks.observation import Observation
from leakpipe.attacks.recursive.image import ImageSettings
from leakpipe.attacks.recursive.invert import RecursiveSettings, invert_recursively
from leakpipe.errors import LeakpipeError
from leakpipe.federation.local import Batch, ClientUpdate, LocalSettings, local_update
from leakpipe.metrics.similarity import ssim
from leakpipe.models.state import build_module, initial_state
from leakpipe.params_models import ModelParams
from tests.unit.attacking import observe, small_model, told

CLIENT = LocalSettings(learning_rate=0.01)
SHORT = RecursiveSettings(image=ImageSettings(iterations=30, total_variation=(1.0, 0.1), refinement=()))


def resnet(size: int = 64, *, images: int = 1) -> tuple[Observation, torch.Tensor]:
    """One face's update as a client sends it, differences of float32 weights; and the face."""
    from skimage.data import lfw_subset
    from skimage.transform import resize

    faces = torch.stack([torch.from_numpy(resize(face, (size, size), order=1)) for face in lfw_subset()[:40]])
    faces = faces[:, None].float().clamp(0, 1)
    truth = faces[:images]
    params = ModelParams(name="resnet18", widths=None, strides=None)
    state = initial_state(build_module(params, classes=2, image_size=size), seed=0)
    update = local_update(state, [Batch(truth, torch.zeros(images, dtype=torch.int64))], CLIENT)
    rounded = {name: (state.weights[name] + change) - state.weights[name] for name, change in update.weights.items()}
    update = ClientUpdate(rounded, update.statistics, update.steps)
    prior = faces[20:].mean(dim=0, keepdim=True).expand(images, -1, -1, -1)
    observation = observe(state, truth, [0] * images, update=update, settings=CLIENT, prior=prior)
    return told(observation, labels=None), truth


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_face_comes_out_of_a_deep_networks_update() -> None:
    observation, truth = resnet()
    found = invert_recursively(observation, SHORT, generator())
    assert observation.prior is not None
    assert ssim(observation.prior[0].numpy(), truth[0].numpy(), data_range=1.0) < 0.6
    assert ssim(found.images[0].numpy(), truth[0].numpy(), data_range=1.0) > 0.9
    assert len(found.layers) == 16
    assert not found.notes
    assert all(layer.gap is None or layer.gap > 1e6 for layer in found.layers)
    assert max(layer.residual for layer in found.layers) < 1e-3


def test_several_images_are_refused() -> None:
    with pytest.raises(LeakpipeError, match="takes one image so far; the client has 2"):
        invert_recursively(resnet(images=2)[0], SHORT, generator())


def test_update_without_running_statistics_is_refused() -> None:
    observation = resnet()[0]
    update = ClientUpdate(observation.update.weights, {}, 1)
    with pytest.raises(LeakpipeError, match="needs running statistics"):
        invert_recursively(told(observation, update=update), SHORT, generator())


def test_other_networks_are_refused() -> None:
    observation = observe(small_model(), torch.rand(1, 1, 8, 8), [0])
    with pytest.raises(LeakpipeError, match=r"knows ResNet-20 and torchvision's ResNets"):
        invert_recursively(observation, SHORT, generator())


def test_noise_leaves_no_gap_and_no_map() -> None:
    observation = resnet()[0]
    noise = generator()
    weights = {
        name: change + 100 * change.std() * torch.randn(change.shape, generator=noise)
        for name, change in observation.update.weights.items()
    }
    update = ClientUpdate(weights, observation.update.statistics, 1)
    with pytest.raises(LeakpipeError, match=r"recovered no map: .*did not come out"):
        invert_recursively(told(observation, update=update), SHORT, generator())
