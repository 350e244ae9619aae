"""A residual network as a chain: a stem, blocks of convolutions with batch normalisation, a linear head."""

import re
from collections.abc import Collection
from dataclasses import dataclass

from torch import nn

from leakpipe.errors import LeakpipeError
from leakpipe.models.resnet20 import BasicBlock as SmallBlock
from leakpipe.models.resnet20 import ResNet20

STEM = ("conv1", "bn1")  # torchvision's names, which most other ResNets took over
SHORTCUTS = ("downsample", "shortcut")


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

    @property
    def is_bottleneck(self) -> bool:
        """Returns whether there are more than two convolutions."""
        return len(self.residual) > 2


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
    def has_bottlenecks(self) -> bool:
        """Returns whether any block is a bottleneck."""
        return any(block.is_bottleneck for block in self.blocks)

    @property
    def trunk(self) -> list[Unit]:
        """The stem, and the units of all residual branches, in the order of the forward pass."""
        return [self.stem, *(unit for block in self.blocks for unit in block.residual)]

    def trunk_before(self, convolutions: Collection[str]) -> list[Unit]:
        """Returns the units of the trunk that are applied until all of these convolutions have been reached."""
        numbers = [number for number, unit in enumerate(self.trunk) if unit.convolution in convolutions]
        return self.trunk[: max(numbers)]

    @property
    def units(self) -> list[Unit]:
        """All units, in the order of the forward pass."""
        found = [self.stem]
        for block in self.blocks:
            found += [*block.residual, *([block.projection] if block.projection else [])]
        return found


def read_chain(module: nn.Module) -> Chain:
    """Returns the chain that a residual network is, by the names of its layers.

    These are ResNet-20's, and torchvision's, at whatever depth of a network of the user's own. What it computes may
    differ all the same; `leakpipe.attacks.recursive.reading.read_layers` compares.

    Raises:
        LeakpipeError: The network is no residual network with batch normalisation that this attack knows.
    """
    if not any(isinstance(layer, nn.BatchNorm2d) for layer in module.modules()):
        raise LeakpipeError("recursive inversion needs batch normalisation in training mode; the model has none")
    if isinstance(module, ResNet20):
        blocks = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, SmallBlock)]
        return Chain(Unit("stem.0", "stem.1"), pooled=False, blocks=tuple(_small_block(*block) for block in blocks))
    for name, layer in module.named_modules():
        children = dict(layer.named_children())
        if {*STEM, "layer1"} <= children.keys():
            stages = [stage for stage in children if re.fullmatch(r"layer\d", stage)]
            named = [(_join(name, stage, child), block) for stage in stages for child, block in _parts(children[stage])]
            stem = Unit(*(_join(name, part) for part in STEM))
            pooled = isinstance(children.get("maxpool"), nn.MaxPool2d)
            return Chain(stem, pooled, blocks=tuple(_torchvision_block(*block) for block in named))
    raise LeakpipeError("recursive inversion knows ResNet-20 and torchvision's ResNets; the model is neither")


def _parts(module: nn.Module) -> list[tuple[str, nn.Module]]:
    return list(module.named_children())


def _join(*names: str) -> str:
    return ".".join(filter(None, names))


def _small_block(name: str, block: SmallBlock) -> Block:
    parts = f"{name}.residual"
    units = (Unit(f"{parts}.0", f"{parts}.1"), Unit(f"{parts}.3", f"{parts}.4"))
    return Block(name, units, projection=None, stride=block.stride)


def _torchvision_block(name: str, block: nn.Module) -> Block:
    count = sum(re.fullmatch(r"conv\d", child) is not None for child, _ in _parts(block))
    units = tuple(Unit(f"{name}.conv{number}", f"{name}.bn{number}") for number in range(1, count + 1))
    for shortcut in SHORTCUTS:
        if parts := [
            f"{name}.{shortcut}.{part}" for part, _ in _parts(getattr(block, shortcut, None) or nn.Identity())
        ]:
            return Block(name, units, Unit(parts[0], parts[-1]))
    return Block(name, units, projection=None)
