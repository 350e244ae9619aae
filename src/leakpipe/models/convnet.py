"""`convnet-bn`: a small convolutional network with batch normalisation."""

from collections.abc import Sequence

from torch import Tensor, nn

from leakpipe.models.normalization import Normalization
from leakpipe.models.preprocessing import normalize_input


class ConvNet(nn.Module):
    """3×3 convolutions without bias, each followed by normalisation and ReLU, then one linear layer.

    Maps images of shape (batch, 1 or 3, image_size, image_size) in [0, 1] to logits of shape (batch, classes). The
    linear layer reads the flattened feature map, not its average. `normalization(channels)` makes a normalisation
    layer.
    """

    def __init__(
        self,
        widths: Sequence[int],
        strides: Sequence[int],
        *,
        normalization: Normalization,
        classes: int,
        image_size: int,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels, size = 3, image_size
        for width, stride in zip(widths, strides, strict=True):
            layers += [
                nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False),
                normalization(width),
                nn.ReLU(),
            ]
            channels, size = width, (size - 1) // stride + 1
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels * size * size, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits of `images`."""
        return self.head(self.features(normalize_input(images)).flatten(1))  # type: ignore[no-any-return]
