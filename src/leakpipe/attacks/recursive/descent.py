"""From the last block to the first: each block's inner map and input, and the gradient that arrives below it."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from leakpipe.attacks.recursive.block import BlockStep
from leakpipe.attacks.recursive.found import Descent, LayerReport
from leakpipe.attacks.recursive.layer import Layer
from leakpipe.attacks.recursive.structure import Block, Chain


def descend(
    chain: Chain,
    layers: Mapping[str, Layer],
    generator: torch.Generator,
    *,
    on_map: Callable[[LayerReport, Tensor], None] = lambda _report, _map: None,
) -> Descent:
    """Recovers maps from the last block downwards; below one that does not come out, those with a null space.

    Args:
        chain: The network.
        layers: What the update tells about each of its units.
        generator: Draws start vectors.
        on_map: Called with every map.
    """
    found = Descent()

    def keep(report: LayerReport, raw: Tensor) -> None:
        found.keep(report, raw)
        on_map(report, raw)

    above: Block | None = None
    for block in reversed(chain.blocks):
        if len(block.residual) < 2:
            found.stopped = f"{block.name}: a block of {len(block.residual)} convolution is not inverted."
            break
        step = BlockStep(block, layers, found, generator, above)
        missing = step.run(keep)
        found.stopped = found.stopped or missing
        above = block
    return found
