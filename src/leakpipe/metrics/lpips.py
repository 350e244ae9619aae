"""LPIPS, the learned perceptual distance of Zhang 2018, version 0.1 with AlexNet's features.

Its weights are not part of leakpipe. They are looked for where torch keeps what it downloaded.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from leakpipe.errors import LeakpipeError

FEATURES_FILE = "alexnet-owt-7be5be79.pth"
FEATURES_SOURCE = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
LINEAR_FILE = "lpips-alex.pth"
LINEAR_SOURCE = "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/alex.pth"
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


def load_lpips(folder: Path | None = None) -> Lpips:
    """Read AlexNet's features and LPIPS's linear weights.

    Args:
        folder: Holds `alexnet-owt-7be5be79.pth` (torchvision's weights) and `lpips-alex.pth` (`alex.pth` of the
            authors' repository, version 0.1); without, torch's own folder of downloaded weights.

    Raises:
        LeakpipeError: A file is missing (the message says where to get it) or holds something else.
    """
    from torchvision.models import alexnet

    folder = folder or Path(torch.hub.get_dir()) / "checkpoints"
    whole = _read_weights(folder / FEATURES_FILE, FEATURES_SOURCE)
    linear = _read_weights(folder / LINEAR_FILE, LINEAR_SOURCE)
    with torch.device("meta"):  # no weights are drawn that are replaced at once
        features: nn.Sequential = alexnet(weights=None).features[:-1]  # no layer follows its last pooling
    prefix = "features."
    state = {name.removeprefix(prefix): tensor for name, tensor in whole.items() if name.startswith(prefix)}
    try:
        features.load_state_dict(state, assign=True)
        weights = [linear[f"lin{layer}.model.1.weight"].reshape(count) for layer, count in enumerate(CHANNELS)]
    except (RuntimeError, KeyError) as error:
        raise LeakpipeError(f"{folder}: weights of LPIPS have other names or shapes: {error}") from error
    return Lpips(features, weights)


def _read_weights(path: Path, source: str) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise LeakpipeError(f"{path}: is missing: LPIPS needs the weights from {source}, saved under this name")
    try:
        weights: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many types for what is not a file of tensors
        raise LeakpipeError(f"{path}: is not a file of weights: {type(error).__name__}") from error
    return weights
