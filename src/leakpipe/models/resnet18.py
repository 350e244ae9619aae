"""`resnet18`: torchvision's ResNet-18, the network of the paper."""

from torch import Tensor, nn
from torchvision.models import resnet18

from leakpipe.models.batchnorm import BatchNorm2d
from leakpipe.models.preprocessing import normalize_input


class ResNet18(nn.Module):
    """torchvision's ResNet-18 with our batch normalisation (He et al. 2015, the ImageNet form).

    Takes images of shape (batch, 1 or 3, height, width) in [0, 1]; gives logits of shape (batch, classes).
    The last feature map is 32 times smaller than the image. Tensors are named as torchvision's with
    "network." in front ("network.conv1.weight"), which is how published weights map onto them.

    ReLUs do not work in place, as torchvision's do (the gradients are the same): nothing that an attack
    differentiates through, or a hook looks at, is overwritten.
    """

    def __init__(self, *, classes: int) -> None:
        super().__init__()
        self.network: nn.Module = resnet18(weights=None, num_classes=classes, norm_layer=BatchNorm2d)
        for layer in self.network.modules():
            if isinstance(layer, nn.ReLU):
                layer.inplace = False

    def forward(self, images: Tensor) -> Tensor:
        """Logits of `images`."""
        return self.network(normalize_input(images))  # type: ignore[no-any-return]
