"""`preact_resnet18`: a residual network whose normalisation and ReLU come before each convolution."""

from torch import Tensor, nn

from leakpipe.models.normalization import Normalization
from leakpipe.models.preprocessing import normalize_input

STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))  # width, and stride of the first of two blocks


class PreactivationResNet18(nn.Module):
    """Pre-activation ResNet-18 (He et al. 2016, "Identity Mappings in Deep Residual Networks") for small images.

    A 3×3 stem without normalisation, four stages of two `PreactivationBlock`s, normalisation and ReLU, the average over
    all pixels, one linear layer. `normalization(channels)` makes a normalisation layer.

    Maps images of shape (batch, 1 or 3, height, width) in [0, 1] to logits of shape (batch, classes).
    """

    def __init__(self, *, normalization: Normalization, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        blocks, channels = [], 64
        for width, stride in STAGES:
            blocks += [
                PreactivationBlock(normalization, channels, width, stride),
                PreactivationBlock(normalization, width, width, 1),
            ]
            channels = width
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Sequential(normalization(channels), nn.ReLU())
        self.head = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits of `images`."""
        features = self.last(self.blocks(self.stem(normalize_input(images))))
        return self.head(features.mean(dim=(2, 3)))  # type: ignore[no-any-return]


class PreactivationBlock(nn.Module):
    """shortcut + conv(ReLU(BN(conv(a)))) with a = ReLU(BN(x)); both convolutions are 3×3 without bias.

    The shortcut is x, or a 1×1 convolution of a where the shape changes. Maps (batch, channels, height, width) to
    (batch, width, ⌈height / stride⌉, ⌈width / stride⌉).
    """

    def __init__(self, normalization: Normalization, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.activation = nn.Sequential(normalization(channels), nn.ReLU())
        self.projection = (
            nn.Conv2d(channels, width, 1, stride=stride, bias=False) if (channels, stride) != (width, 1) else None
        )
        self.residual = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False),
            normalization(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Returns the features that the next block reads."""
        activated = self.activation(features)
        shortcut = features if self.projection is None else self.projection(activated)
        return shortcut + self.residual(activated)  # type: ignore[no-any-return]
