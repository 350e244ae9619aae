"""What every model does to its input first."""

from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalize_input(images: Tensor) -> Tensor:
    """Repeat gray images to 3 channels and normalise with ImageNet's mean and standard deviation.

    It is part of every model, so that clients, attacks and scorers all deal in images in [0, 1].

    Args:
        images: Shape (batch, 1 or 3, height, width), values in [0, 1].

    Returns:
        Network input of shape (batch, 3, height, width).
    """
    mean = images.new_tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
    std = images.new_tensor(IMAGENET_STD).view(1, 3, 1, 1)
    return (images.expand(-1, 3, -1, -1) - mean) / std
