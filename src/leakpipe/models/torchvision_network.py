"""torchvision's networks for images in [0, 1], with a choice of normalisation and without dropout."""

from collections.abc import Callable
from functools import partial

import torchvision
from torch import Tensor, nn

from leakpipe.models.normalization import Normalization
from leakpipe.models.preprocessing import normalize_input

PREFIX = "network."
# Of torchvision's class, in the size of DeiT-Ti (Touvron et al. 2021).
VIT_TINY = partial(
    torchvision.models.VisionTransformer, patch_size=16, num_layers=12, num_heads=3, hidden_dim=192, mlp_dim=768
)


class TorchvisionNetwork(nn.Module):
    """A network of torchvision with some layers replaced.

    Maps images of shape (batch, 1 or 3, height, width) in [0, 1] to logits of shape (batch, classes). Tensors have
    torchvision's names with the prefix "network." ("network.conv1.weight"), which maps published weights onto them.
    It differs from torchvision's in three respects:

    - `normalization` makes the layers in place of batch normalisation;
    - no ReLU layer works in place (the gradients are the same): nothing that a hook reads is overwritten;
    - there is no dropout (VGG has some) and no stochastic depth (ConvNeXt has): local training depends on its data
      alone, for the client and the attack.

    Args:
        name: torchvision's constructor ("resnet18"), or "vit_tiny".
        normalization: `normalization(channels)` makes a layer.
        image_size: Height and width; only vision transformers depend on it.
    """

    def __init__(self, name: str, *, normalization: Normalization, classes: int, image_size: int) -> None:
        super().__init__()
        construct: Callable[..., nn.Module] = VIT_TINY if name == "vit_tiny" else getattr(torchvision.models, name)
        size = {"image_size": image_size} if name.startswith("vit") else {}
        self.network = construct(num_classes=classes, **size)
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
    return nn.Identity() if isinstance(layer, nn.Dropout | torchvision.ops.StochasticDepth) else layer
