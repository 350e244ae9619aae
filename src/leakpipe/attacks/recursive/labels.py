"""The class of each image, from the head's gradient and what the head read."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from leakpipe.attacks.observation import Observation
from leakpipe.attacks.plain_update import read_training
from leakpipe.attacks.recursive.forward import before_last_relu
from leakpipe.attacks.recursive.found import Descent
from leakpipe.attacks.recursive.layer import Layer
from leakpipe.attacks.recursive.structure import Chain

FITS = 0.1  # relative residual of the head's gradient, above which the head reads something else


def read_labels(observation: Observation, chain: Chain, layers: Mapping[str, Layer], found: Descent) -> Tensor | None:
    """Returns the class index of each image, int64 of shape (images,); None where it cannot be read.

    The head's weight gradient is Σ_i (p_i − y_i) ⊗ f_i, with f_i the average of the last block's output over all
    pixels, p_i the predicted probabilities and y_i the label: only the label's entry of p_i − y_i is negative.

    Args:
        observation: Of one local step of images with one class each.
        chain: The network.
        layers: What the update tells about its units.
        found: Recovered maps.
    """
    last = chain.blocks[-1]
    if observation.client.multi_label or not {unit.convolution for unit in last.residual} <= found.maps.keys():
        return None
    first, second = (layers[last.residual[number].convolution] for number in (0, -1))
    side = layers[last.projection.convolution] if last.projection else None
    value = before_last_relu(second, side, last.stride, found.maps[second.name], found.maps[first.name])
    features = value.clamp_min(0).mean(dim=(2, 3))
    heads = [
        f"{name}.weight"
        for name, layer in observation.before.module.named_modules()
        if isinstance(layer, nn.Linear) and layer.in_features == features.shape[1]
    ]
    if len(heads) != 1 or heads[0] not in observation.update.weights:
        return None
    training = read_training(observation.before.weights, observation.settings, 1)
    gradient = training.gradient(heads[0], observation.update.weights[heads[0]])
    errors: Tensor = torch.linalg.lstsq(features.T, gradient.T).solution  # p − y, shape (images, classes)
    misfit = (features.T @ errors - gradient.T).norm()
    if not float(misfit) <= FITS * float(gradient.norm()):
        return None
    return errors.argmin(dim=1)
