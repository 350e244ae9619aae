"""`convnet3d`: a small convolutional network with batch normalisation, for volumes."""

from torch import Tensor, nn

from leakpipe.models.normalization import Normalization

WIDTHS, STRIDES = (16, 32, 32, 64), (1, 2, 1, 2)
MEAN, DEVIATION = 0.449, 0.226  # of ImageNet's gray pixels


class ConvNet3d(nn.Module):
    """3×3×3 convolutions without bias, each followed by normalisation and ReLU, then one linear layer.

    Maps volumes of shape (batch, 1, image_size, image_size, image_size) in [0, 1] to logits of shape (batch, classes).
    The linear layer reads the flattened feature map. `normalization(channels)` makes a normalisation layer.
    """

    def __init__(self, *, normalization: Normalization, classes: int, image_size: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels, size = 1, image_size
        for width, stride in zip(WIDTHS, STRIDES, strict=True):
            convolution = nn.Conv3d(channels, width, 3, stride=stride, padding=1, bias=False)
            layers += [convolution, normalization(width), nn.ReLU()]
            channels, size = width, (size - 1) // stride + 1
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels * size**3, classes)

    def forward(self, volumes: Tensor) -> Tensor:
        """Returns the logits of `volumes`."""
        return self.head(self.features((volumes - MEAN) / DEVIATION).flatten(1))  # type: ignore[no-any-return]
