"""Input normalisation, the first operation of every registered model."""

from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalize_input(images: Tensor) -> Tensor:
    """Repeats gray images to 3 channels and normalises with ImageNet's mean and standard deviation.

    It is part of every model, so that clients, attacks and metrics all work on images in [0, 1].

    Args:
        images: Shape (batch, 1 or 3, height, width), values in [0, 1].

    Returns:
        Network input of shape (batch, 3, height, width).
    """
    mean, std = _constants(images)
    return (images.expand(-1, 3, -1, -1) - mean) / std


def undo_normalization(network_input: Tensor) -> Tensor:
    """Returns the images that `normalize_input` maps to `network_input`.

    Args:
        network_input: Shape (batch, 1 or 3, height, width); gray is repeated to 3 channels.

    Returns:
        Shape (batch, 3, height, width).
    """
    mean, std = _constants(network_input)
    return network_input.expand(-1, 3, -1, -1) * std + mean


def _constants(like: Tensor) -> tuple[Tensor, Tensor]:
    return like.new_tensor(IMAGENET_MEAN).view(1, 3, 1, 1), like.new_tensor(IMAGENET_STD).view(1, 3, 1, 1)
