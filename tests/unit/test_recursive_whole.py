"""Recursive inversion of a ResNet-18, from an observation to the image."""

import torch
from skimage.data import lfw_subset
from skimage.transform import resize

from leakpipe.attacks.observation import Observation
from leakpipe.attacks.recursive.image import ImageSettings, Stage
from leakpipe.attacks.recursive.invert import RecursiveSettings, invert_recursively
from leakpipe.client.batches import make_batches
from leakpipe.client.local_update import LocalSettings, local_update
from leakpipe.client.update import ClientUpdate
from leakpipe.metrics.score import score_images
from leakpipe.metrics.similarity import ssim
from leakpipe.models.state import build_module, initial_state
from leakpipe.params.models import ModelParams
from tests.unit.attacking import changed, observe
from tests.unit.residual import generator

CLIENT = LocalSettings(learning_rate=0.01)
SHORT = RecursiveSettings(ImageSettings(iterations=360, stages=(Stage(0.1), Stage(0.01)), refinement=(), cycles=0))


def resnet(labels: list[int], size: int = 64) -> tuple[Observation, torch.Tensor]:
    """The update of one batch of faces as a client sends it, differences of float32 weights; and the faces."""
    faces = torch.stack([torch.from_numpy(resize(face, (size, size), order=1)) for face in lfw_subset()[:40]])
    faces = faces[:, None].float().clamp(0, 1)
    truth = faces[: len(labels)]
    params = ModelParams(name="resnet18", widths=None, strides=None)
    state = initial_state(build_module(params, classes=2, image_size=size), seed=0)
    update = local_update(state, make_batches(truth, torch.tensor(labels), [list(range(len(labels)))]), CLIENT)
    rounded = {name: (state.weights[name] + change) - state.weights[name] for name, change in update.weights.items()}
    update = ClientUpdate(rounded, update.statistics, update.steps)
    prior = faces[20:].mean(dim=0, keepdim=True).expand(len(labels), -1, -1, -1)
    observation = observe(state, truth, labels, update=update, settings=CLIENT, prior=prior)
    return changed(observation, labels=None), truth


def test_face_comes_out_of_a_deep_networks_update() -> None:
    observation, truth = resnet([0])
    found = invert_recursively(observation, SHORT, generator())
    assert observation.client.prior is not None
    assert ssim(observation.client.prior[0].numpy(), truth[0].numpy(), data_range=1.0) < 0.6
    assert ssim(found.images[0].numpy(), truth[0].numpy(), data_range=1.0) > 0.9
    assert len(found.layers) == 16
    assert not found.notes
    assert all(layer.gap is None or layer.gap > 1e6 for layer in found.layers)
    assert max(layer.residual for layer in found.layers) < 1e-3


def test_faces_of_one_batch_come_out_with_their_labels() -> None:
    labels = [1, 0, 0]
    observation, truth = resnet(labels)
    found = invert_recursively(observation, SHORT, generator())
    assert observation.client.prior is not None
    rows = score_images(found.images.numpy(), truth.numpy(), observation.client.prior.numpy())
    assert min(row["ssim"] for row in rows) > 0.75
    assert max(row["ssim_prior"] for row in rows) < 0.6
    assert found.labels is not None
    assert [int(found.labels[row["reconstruction"]]) for row in rows] == labels
    lowest = {report.layer.removeprefix("network."): report.residual for report in found.layers}
    assert lowest["layer2.0.conv1"] < 1e-2
