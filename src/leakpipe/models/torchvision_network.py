"""torchvision's networks for images in [0, 1], with a choice of normalisation and without dropout."""

import torchvision
from torch import Tensor, nn

from leakpipe.models.normalization import Normalization
from leakpipe.models.preprocessing import normalize_input

PREFIX = "network."


class TorchvisionNetwork(nn.Module):
    """A network of torchvision with some layers replaced.

    Maps images of shape (batch, 1 or 3, height, width) in [0, 1] to logits of shape (batch, classes). Tensors have
    torchvision's names with the prefix "network." ("network.conv1.weight"), which maps published weights onto them.
    It differs from torchvision's in three respects:

    - `normalization` makes the layers in place of batch normalisation;
    - no ReLU layer works in place (the gradients are the same): nothing that a hook reads is overwritten;
    - there is no dropout (VGG has some): local training depends on its data alone, for the client and the attack.

    Args:
        name: torchvision's constructor ("resnet18").
        normalization: `normalization(channels)` makes a layer.
    """

    def __init__(self, name: str, *, normalization: Normalization, classes: int) -> None:
        super().__init__()
        self.network: nn.Module = getattr(torchvision.models, name)(num_classes=classes)
        for parent in list(self.network.modules()):
            for child, layer in list(parent.named_children()):
                setattr(parent, child, _replace(layer, normalization))

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits of `images`."""
        return self.network(normalize_input(images))  # type: ignore[no-any-return]


def _replace(layer: nn.Module, normalization: Normalization) -> nn.Module:
    if isinstance(layer, nn.BatchNorm2d):
        return normalization(layer.num_features)
    if isinstance(layer, nn.ReLU):
        return nn.ReLU()
    return nn.Identity() if isinstance(layer, nn.Dropout) else layer
