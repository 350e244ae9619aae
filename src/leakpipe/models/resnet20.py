"""`resnet20`: the residual network of 20 layers for small images."""

from torch import Tensor, nn

from leakpipe.models.normalization import Normalization
from leakpipe.models.preprocessing import normalize_input


class ResNet20(nn.Module):
    """ResNet-20 of He et al. 2015, section 4.2; `normalization(channels)` makes a normalisation layer.

    A 3×3 stem, three stages of three basic blocks with 16, 32 and 64 channels (the second and the third stage halve
    height and width), the average over all pixels, one linear layer. Shortcuts have no parameters (the paper's
    option A, see `BasicBlock`).

    Maps images of shape (batch, 1 or 3, height, width) in [0, 1] to logits of shape (batch, classes).
    """

    def __init__(self, *, normalization: Normalization, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), normalization(16), nn.ReLU())
        sizes = ((16, 16, 1), (16, 32, 2), (32, 64, 2))
        self.stages = nn.Sequential(*(_stage(normalization, *size) for size in sizes))
        self.head = nn.Linear(64, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits of `images`."""
        features = self.stages(self.stem(normalize_input(images)))
        return self.head(features.mean(dim=(2, 3)))  # type: ignore[no-any-return]


class BasicBlock(nn.Module):
    """ReLU(shortcut(x) + BN(conv(ReLU(BN(conv(x)))))), both convolutions 3×3 without bias.

    Maps (batch, channels, height, width) to (batch, width, ⌈height / stride⌉, ⌈width / stride⌉). The shortcut keeps
    every `stride`-th pixel, starting with the first, and appends channels of zeros.
    """

    def __init__(self, normalization: Normalization, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.added_channels, self.stride = width - channels, stride
        self.residual = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False),
            normalization(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            normalization(width),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Returns the features that the next block reads."""
        kept = features[:, :, :: self.stride, :: self.stride]
        shortcut = nn.functional.pad(kept, (0, 0, 0, 0, 0, self.added_channels))
        return nn.functional.relu(shortcut + self.residual(features))


def _stage(normalization: Normalization, channels: int, width: int, stride: int) -> nn.Sequential:
    """Returns three blocks, the first of which may halve height and width."""
    return nn.Sequential(
        BasicBlock(normalization, channels, width, stride),
        BasicBlock(normalization, width, width, 1),
        BasicBlock(normalization, width, width, 1),
    )
