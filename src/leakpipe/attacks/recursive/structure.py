"""A residual network as a chain: a stem, blocks of convolutions with batch normalisation, a linear head."""

from dataclasses import dataclass

from torch import nn

from leakpipe.errors import LeakpipeError
from leakpipe.models.resnet20 import BasicBlock as SmallBlock
from leakpipe.models.resnet20 import ResNet20

TORCHVISION = "network"  # where `leakpipe.models.torchvision_network` keeps it; importing that needs torchvision


@dataclass(frozen=True)
class Unit:
    """A convolution and the batch normalisation behind it, by the names of their modules."""

    convolution: str
    normalization: str


@dataclass(frozen=True)
class Block:
    """ReLU(shortcut(x) + residual(x)), where the residual branch is units with ReLUs between them.

    Attributes:
        name: The block's module.
        residual: Its units, in order.
        projection: The shortcut's unit; None where the shortcut has no parameters.
        stride: Of a shortcut without parameters, which keeps every `stride`-th pixel and adds channels of zeros.
    """

    name: str
    residual: tuple[Unit, ...]
    projection: Unit | None
    stride: int = 1


@dataclass(frozen=True)
class Chain:
    """The whole network, from the image on.

    Attributes:
        stem: Followed by a ReLU.
        pooled: Whether a 3×3 max-pool of stride 2 follows the stem.
        blocks: In order; the average over all pixels and a linear layer come after them.
    """

    stem: Unit
    pooled: bool
    blocks: tuple[Block, ...]

    @property
    def units(self) -> list[Unit]:
        """All units, in the order of the forward pass."""
        found = [self.stem]
        for block in self.blocks:
            found += [*block.residual, *([block.projection] if block.projection else [])]
        return found


def read_chain(module: nn.Module) -> Chain:
    """Returns the chain that a residual network is.

    Raises:
        LeakpipeError: The network is no residual network with batch normalisation that this attack knows.
    """
    if not any(isinstance(layer, nn.BatchNorm2d) for layer in module.modules()):
        raise LeakpipeError("recursive inversion needs batch normalisation in training mode; the model has none")
    if isinstance(module, ResNet20):
        blocks = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, SmallBlock)]
        return Chain(Unit("stem.0", "stem.1"), pooled=False, blocks=tuple(_small_block(*block) for block in blocks))
    if hasattr(getattr(module, TORCHVISION, None), "layer4"):
        stages = [f"{TORCHVISION}.layer{number}" for number in (1, 2, 3, 4)]
        named: list[tuple[str, nn.Module]] = []
        for stage in stages:
            named += [(f"{stage}.{name}", block) for name, block in module.get_submodule(stage).named_children()]
        stem = Unit(f"{TORCHVISION}.conv1", f"{TORCHVISION}.bn1")
        return Chain(stem, pooled=True, blocks=tuple(_torchvision_block(*block) for block in named))
    raise LeakpipeError("recursive inversion knows ResNet-20 and torchvision's ResNets; the model is neither")


def _small_block(name: str, block: SmallBlock) -> Block:
    parts = f"{name}.residual"
    units = (Unit(f"{parts}.0", f"{parts}.1"), Unit(f"{parts}.3", f"{parts}.4"))
    return Block(name, units, projection=None, stride=block.stride)


def _torchvision_block(name: str, block: nn.Module) -> Block:
    count = sum(child.startswith("conv") for child, _ in block.named_children())
    units = tuple(Unit(f"{name}.conv{number}", f"{name}.bn{number}") for number in range(1, count + 1))
    projected = block.get_submodule("downsample") if block.downsample is not None else None
    projection = Unit(f"{name}.downsample.0", f"{name}.downsample.1") if projected is not None else None
    return Block(name, units, projection)
