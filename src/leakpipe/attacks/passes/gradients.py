"""All gradients of a network held against their targets: matrices one by one, the many small vectors as one."""

from collections.abc import Sequence

import torch
from torch import Tensor

from leakpipe.attacks.objectives import Products
from leakpipe.attacks.passes.base import Layer
from leakpipe.attacks.passes.compared import Compared
from leakpipe.attacks.passes.program import Instruction
from leakpipe.attacks.passes.weighted import ParameterLayer
from leakpipe.models.state import Tensors


class Gradients:
    """Where each parameter's gradient is found, and what the vectors among them are compared with.

    Args:
        instructions: Of the network.
        weights: By parameter name, of one network.
        targets: By parameter name; results are in their order.
        networks: How many are side by side.
    """

    def __init__(
        self, instructions: Sequence[Instruction], weights: Tensors, targets: Tensors, *, networks: int
    ) -> None:
        self.networks = networks
        held = [f"{step.name}.{kind}" for step in instructions if step.name for kind in ("weight", "bias")]
        vectors = [name for name in held if name in weights and weights[name].dim() == 1]
        matrices = [name for name in held if name in weights and weights[name].dim() > 1]
        self.sizes = [len(weights[name]) for name in vectors]
        self.owner = torch.arange(len(vectors)).repeat_interleave(torch.tensor(self.sizes, dtype=torch.int64))
        wanted = [targets.get(name, torch.zeros_like(weights[name])) for name in vectors]
        self.vector_targets = torch.cat([*wanted, next(iter(weights.values())).new_zeros(0)])
        self.count = len(matrices) + len(vectors)
        places = {name: place for place, name in enumerate([*matrices, *vectors])}
        self.order = torch.tensor([places[name] for name in targets])

    def compare(self, layers: Sequence[Layer]) -> Products:
        """After the backward pass."""
        matrices = _matrices(layers)
        vectors = self._vectors(layers)
        inner = self._all([each.inner for each in matrices], vectors * self.vector_targets)
        squared = self._all([each.squared for each in matrices], vectors.square())
        gaps = [each.gap for each in matrices if each.gap is not None]
        if len(gaps) < len(matrices):
            return Products(inner, squared, None)
        return Products(inner, squared, self._all(gaps, (vectors - self.vector_targets).square()))

    def aim(self, layers: Sequence[Layer], slopes: Products) -> None:
        """Let parameters move along the derivative, in their gradients, of a function of `compare`'s results.

        Args:
            slopes: Derivative of the function in each of them.
        """
        along = [slopes.inner, 2 * slopes.squared]
        if slopes.gaps is not None:
            along = [along[0] - 2 * slopes.gaps, along[1] + 2 * slopes.gaps]
        vectors = self._vectors(layers)
        steps = vectors.new_zeros(2, self.networks, self.count)
        steps[:, :, self.order] = torch.stack(along).to(steps.dtype)
        matrices = _matrices(layers)
        for compared, step in zip(matrices, steps.unbind(2), strict=False):
            compared.aim(*step)
        along_target, along_gradient = steps[:, :, len(matrices) :][:, :, self.owner]
        directions = iter((along_target * self.vector_targets + along_gradient * vectors).split(self.sizes, dim=1))
        for layer in layers:
            if isinstance(layer, ParameterLayer):
                layer.vector_directions = [next(directions).reshape(-1) for _ in layer.vector_gradients]

    def _vectors(self, layers: Sequence[Layer]) -> Tensor:
        """All of them, shape (networks, values)."""
        found = [value for layer in layers if isinstance(layer, ParameterLayer) for value in layer.vector_gradients]
        none = self.vector_targets.new_zeros(self.networks, 0)
        return torch.cat([*(value.view(self.networks, -1) for value in found), none], dim=1)

    def _all(self, matrices: Sequence[Tensor], vectors: Tensor) -> Tensor:
        """What was found of each matrix, and the sums over each vector, in the order of the targets."""
        sums = torch.zeros(self.networks, len(self.sizes), dtype=torch.float64)
        sums.index_add_(1, self.owner, vectors.double())
        return torch.cat([*(each[:, None] for each in matrices), sums], dim=1)[:, self.order]


def _matrices(layers: Sequence[Layer]) -> list[Compared]:
    found = [layer.weight_compared for layer in layers if isinstance(layer, ParameterLayer)]
    return [compared for compared in found if compared is not None]
