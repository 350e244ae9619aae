"""All gradients of a network compared with their targets: matrices one by one, the many small vectors as one."""

from collections.abc import Sequence

import torch
from torch import Tensor

from leakpipe.attacks.distances import Products
from leakpipe.attacks.engines.double_backward.base import Layer
from leakpipe.attacks.engines.double_backward.compared import Compared, Formed, formed_products
from leakpipe.attacks.engines.double_backward.program import Instruction
from leakpipe.attacks.engines.double_backward.weighted import ParameterLayer
from leakpipe.models.state import Tensors

Parts = list[Tensor]  # a tensor of every weight matrix, and one of shape (networks, values) of all vectors


class Gradients:
    """The places of all parameters' gradients, and the targets of the vectors among them.

    Args:
        instructions: Of the network.
        weights: By parameter name, of one network.
        targets: By parameter name; results are in their order.
        networks: How many are side by side.
        differs: Whether ‖gradient − target‖² is needed.
    """

    def __init__(
        self,
        instructions: Sequence[Instruction],
        weights: Tensors,
        targets: Tensors,
        *,
        networks: int,
        differs: bool,
    ) -> None:
        self.networks, self.differs = networks, differs
        held = [f"{step.name}.{kind}" for step in instructions if step.name for kind in ("weight", "bias")]
        self.vectors = [name for name in held if name in weights and weights[name].dim() == 1]
        self.matrices = [name for name in held if name in weights and weights[name].dim() > 1]
        self.sizes = [len(weights[name]) for name in self.vectors]
        device = next(iter(weights.values())).device
        counts = torch.tensor(self.sizes, dtype=torch.int64, device=device)
        self.owner = torch.arange(len(self.sizes), device=device).repeat_interleave(counts)
        wanted = [targets.get(name, torch.zeros_like(weights[name])) for name in self.vectors]
        self.vector_targets = torch.cat([*wanted, next(iter(weights.values())).new_zeros(0)])
        self.matrix_targets = [targets.get(name) for name in self.matrices]
        places = {name: place for place, name in enumerate([*self.matrices, *self.vectors])}
        self.order = torch.tensor([places[name] for name in targets], dtype=torch.int64, device=device)

    def compare(self, layers: Sequence[Layer]) -> Products:
        """Compares the gradients, after the backward pass."""
        found = [compared.products(differs=self.differs) for compared in _compared(layers)]
        return self._products(found, self._side_by_side([layer.vector_gradients for layer in _holders(layers)]))

    def compare_sum(self, parts: Parts) -> Products:
        """Compares gradients that are the sum of those of several steps."""
        pairs = zip(parts, self.matrix_targets, strict=False)
        found = [formed_products(matrix[None], target, differs=self.differs) for matrix, target in pairs]
        return self._products(found, parts[-1])

    def aim(self, layers: Sequence[Layer], slopes: Products) -> None:
        """Lets parameters move along the derivative, in their gradients, of a function of `compare`'s results.

        Args:
            slopes: Derivative of the function in each of them.
        """
        vectors = self._side_by_side([layer.vector_gradients for layer in _holders(layers)])
        along_target, along_gradient, direction = self._steps(slopes, vectors)
        for compared, *step in zip(_compared(layers), along_target, along_gradient, strict=True):
            compared.aim(*step)
        self._aim_vectors(layers, direction)

    def direction(self, parts: Parts, slopes: Products) -> Parts:
        """The direction along which `aim` would let parameters move if their gradients were `parts`."""
        along_target, along_gradient, vectors = self._steps(slopes, parts[-1])
        found = []
        for matrix, target, *step in zip(parts, self.matrix_targets, along_target, along_gradient, strict=False):
            found.append(matrix * step[1] if target is None else matrix * step[1] + target * step[0])
        return [*found, vectors]

    def aim_along(self, layers: Sequence[Layer], direction: Parts) -> None:
        """Lets parameters move along a direction."""
        for compared, matrix in zip(_compared(layers), direction, strict=False):
            assert isinstance(compared, Formed)  # where there are several steps
            compared.direction = matrix
        self._aim_vectors(layers, direction[-1])

    def formed(self, layers: Sequence[Layer]) -> Parts:
        """The gradients, after the backward pass."""
        matrices = [compared.gradient for compared in _compared(layers) if isinstance(compared, Formed)]
        return [*matrices, self._side_by_side([layer.vector_gradients for layer in _holders(layers)])]

    def adjoints(self, layers: Sequence[Layer]) -> Parts:
        """The derivatives that `ParameterLayer.differentiate_weights` found."""
        matrices = [layer.weight_adjoint for layer in _holders(layers) if layer.weight_adjoint is not None]
        return [*matrices, self._side_by_side([layer.vector_adjoints for layer in _holders(layers)])]

    def by_name(self, parts: Parts) -> dict[str, Tensor]:
        """Parts of one network by parameter name."""
        vectors = parts[-1][0].split(self.sizes)
        return {**dict(zip(self.matrices, parts, strict=False)), **dict(zip(self.vectors, vectors, strict=True))}

    def _products(self, matrices: Sequence[tuple[Tensor, ...]], vectors: Tensor) -> Products:
        summands = [vectors * self.vector_targets, vectors.square()]
        if self.differs:
            summands.append((vectors - self.vector_targets).square())
        sums = vectors.new_zeros(len(summands), self.networks, len(self.sizes), dtype=torch.float64)
        sums.index_add_(2, self.owner, torch.stack(summands).double())
        found = [torch.stack(products)[:, :, None] for products in matrices]
        inner, squared, *gaps = torch.cat([*found, sums], dim=2)[:, :, self.order]
        return Products(inner, squared, gaps[0] if gaps else None)

    def _steps(self, slopes: Products, vectors: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor], Tensor]:
        """Returns how far each matrix moves along its target and its gradient, and the direction of the vectors."""
        matrices = len(self.matrices)
        steps = vectors.new_zeros(2, self.networks, matrices + len(self.vectors))
        steps[:, :, self.order] = torch.stack(slopes.steps()).to(steps.dtype)
        along_target, along_gradient = steps[:, :, matrices:][:, :, self.owner]
        direction = along_target * self.vector_targets + along_gradient * vectors
        of_matrices = steps[:, :, :matrices].transpose(1, 2)
        return of_matrices[0].unbind(), of_matrices[1].unbind(), direction

    def _aim_vectors(self, layers: Sequence[Layer], direction: Tensor) -> None:
        parts = iter(direction.split(self.sizes, dim=1))
        for layer in _holders(layers):
            layer.vector_directions = [next(parts).reshape(-1) for _ in layer.vector_gradients]

    def _side_by_side(self, vectors: Sequence[Sequence[Tensor]]) -> Tensor:
        """Vectors of each layer as one tensor of shape (networks, values)."""
        none = self.vector_targets.new_zeros(self.networks, 0)
        rows = [value.view(self.networks, -1) for of_layer in vectors for value in of_layer]
        return torch.cat([*rows, none], dim=1)


def _holders(layers: Sequence[Layer]) -> list[ParameterLayer]:
    return [layer for layer in layers if isinstance(layer, ParameterLayer)]


def _compared(layers: Sequence[Layer]) -> list[Compared]:
    found = [layer.weight_compared for layer in _holders(layers)]
    return [compared for compared in found if compared is not None]
