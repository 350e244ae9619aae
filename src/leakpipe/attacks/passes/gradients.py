"""All gradients of a network held against their targets: matrices one by one, the many small vectors as one."""

from collections.abc import Sequence

import torch
from torch import Tensor

from leakpipe.attacks.passes.base import Layer
from leakpipe.attacks.passes.compared import Compared
from leakpipe.attacks.passes.program import Instruction
from leakpipe.attacks.passes.weighted import ParameterLayer
from leakpipe.models.state import Tensors


class Gradients:
    """Where each parameter's gradient is found, and what the vectors among them are compared with.

    Args:
        instructions: Of the network.
        weights: By parameter name.
        targets: By parameter name; results are in their order.
    """

    def __init__(self, instructions: Sequence[Instruction], weights: Tensors, targets: Tensors) -> None:
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

    def compare(self, layers: Sequence[Layer]) -> tuple[Tensor, Tensor]:
        """Inner products and squared norms after the backward pass, float64 of shape (targets,)."""
        matrices = _matrices(layers)
        vectors = self._vectors(layers)
        inner = [torch.stack([each.inner for each in matrices]), self._sums(vectors * self.vector_targets)]
        squared = [torch.stack([each.squared for each in matrices]), self._sums(vectors * vectors)]
        return torch.cat(inner)[self.order], torch.cat(squared)[self.order]

    def aim(self, layers: Sequence[Layer], inner: Tensor, squared: Tensor) -> None:
        """Let parameters move along the derivative, in their gradients, of a function of `compare`'s results.

        Args:
            inner: Derivative of the function in the inner products.
            squared: In the squared norms.
        """
        vectors = self._vectors(layers)
        steps = vectors.new_zeros(2, self.count)
        steps[:, self.order] = torch.stack([inner, 2 * squared]).to(steps.dtype)
        matrices = _matrices(layers)
        for compared, along in zip(matrices, steps.unbind(1), strict=False):
            compared.aim(*along)
        along_target, along_gradient = steps[:, len(matrices) :][:, self.owner]
        directions = iter((along_target * self.vector_targets + along_gradient * vectors).split(self.sizes))
        for layer in layers:
            if isinstance(layer, ParameterLayer):
                layer.vector_directions = [next(directions) for _ in layer.vector_gradients]

    def _vectors(self, layers: Sequence[Layer]) -> Tensor:
        found = [value for layer in layers if isinstance(layer, ParameterLayer) for value in layer.vector_gradients]
        return torch.cat([*found, self.vector_targets[:0]])

    def _sums(self, values: Tensor) -> Tensor:
        """By vector."""
        return torch.zeros(len(self.sizes), dtype=torch.float64).index_add_(0, self.owner, values.double())


def _matrices(layers: Sequence[Layer]) -> list[Compared]:
    found = [layer.weight_compared for layer in layers if isinstance(layer, ParameterLayer)]
    return [compared for compared in found if compared is not None]
