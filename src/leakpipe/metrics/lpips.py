"""LPIPS, the learned perceptual distance of Zhang 2018, version 0.1 with AlexNet's features.

Its weights are not part of leakpipe: `leakpipe.models.weights` says where they come from.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from leakpipe.errors import LeakpipeError
from leakpipe.models.pretrained import read_published
from leakpipe.models.weights import LPIPS, find_weights

CHANNELS = (64, 192, 384, 256, 256)  # of AlexNet's five ReLU layers
SMALLEST_SIDE = 31  # pixels; AlexNet pools what is smaller to nothing
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)


class Lpips:
    """The distance of two images as AlexNet sees them.

    Args:
        features: AlexNet's convolutional part.
        weights: For each of its five ReLU layers the weights of its channels, shape (channels,), not negative.
    """

    def __init__(self, features: nn.Sequential, weights: Sequence[torch.Tensor]) -> None:
        self.features = features.eval().requires_grad_(requires_grad=False)
        self.weights = tuple(weights)

    def __call__(self, image: np.ndarray, original: np.ndarray, *, data_range: float) -> float:
        """Sum over layers of the mean over places of the weighted squared distance of unit feature vectors.

        Args:
            image: Shape (channels, height, width), values in [0, data_range], 1 channel (repeated to three) or 3, at
                least 31×31 pixels. The measure was fitted to human judgement on 64×64 pixels.
            original: Same shape.
            data_range: Largest minus smallest possible value.

        Returns:
            At least 0, and 0 for identical images; about 0.7 and more for unrelated ones.

        Raises:
            LeakpipeError: Where the images have another number of channels or are smaller.
        """
        if image.shape != original.shape or image.shape[0] not in (1, 3) or min(image.shape[1:]) < SMALLEST_SIDE:
            raise LeakpipeError(
                f"LPIPS compares two images of 1 or 3 channels and at least {SMALLEST_SIDE}×{SMALLEST_SIDE} pixels, "
                f"got {image.shape} and {original.shape}"
            )
        pixels = torch.from_numpy(np.stack([image, original]) / data_range).float().expand(-1, 3, -1, -1)
        shift, scale = (torch.tensor(values)[:, None, None] for values in (_SHIFT, _SCALE))
        layer, total = (2 * pixels - 1 - shift) / scale, 0.0
        weights = iter(self.weights)
        for module in self.features:
            layer = module(layer)
            if isinstance(module, nn.ReLU):
                unit = layer / (layer.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)
                squares = (unit[0] - unit[1]).square().mean(dim=(1, 2))
                total += float((next(weights) * squares).sum())
        return total


def load_lpips() -> Lpips:
    """Reads AlexNet's features and LPIPS's linear weights.

    Raises:
        LeakpipeError: A file is missing (the message says how to get it) or is another than the published one.
    """
    from torchvision.models import alexnet

    whole, linear = (read_published(name, find_weights(name, field="scoring.lpips")) for name in LPIPS)
    with torch.device("meta"):  # no weights are drawn that are replaced at once
        features: nn.Sequential = alexnet(weights=None).features[:-1]  # no layer follows its last pooling
    prefix = "features."
    state = {name.removeprefix(prefix): tensor for name, tensor in whole.items() if name.startswith(prefix)}
    features.load_state_dict(state, assign=True)
    return Lpips(
        features, [linear[f"lin{layer}.model.1.weight"].reshape(count) for layer, count in enumerate(CHANNELS)]
    )
