"""The four passes through a network for one local step of a client on candidates."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from leakpipe.attacks.engines.double_backward.base import Adjoints, Layer, pull_back
from leakpipe.attacks.engines.double_backward.program import Instruction
from leakpipe.attacks.engines.double_backward.weighted import Normalized, ParameterLayer
from leakpipe.client.local_update import LocalSettings, mean_loss
from leakpipe.models.state import Tensors


class LocalStep:
    """One step; it is made by the forward and the backward pass, and holds what the others need.

    Args:
        instructions: The network.
        weights: That the step starts from, of all networks side by side.
        network_input: Shape (images, networks · channels, height, width).
        labels: Of each network as in `leakpipe.client.local_update.Batch`, shape (networks, images[, classes]).
        settings: How the client trains.

    Attributes:
        layers: In the order of the instructions.
    """

    def __init__(
        self,
        instructions: Sequence[Instruction],
        weights: Tensors,
        network_input: Tensor,
        labels: Tensor,
        settings: LocalSettings,
    ) -> None:
        self.instructions = instructions
        self.layers: list[Layer] = []
        values = [network_input.contiguous(memory_format=torch.channels_last)]
        for step in instructions:
            self.layers.append(step.make(weights, *(values[read] for read in step.reads)))
            values.append(self.layers[-1].output)
        networks = len(labels)
        with torch.enable_grad():
            self.logits, self.labels = values[-1].detach().requires_grad_(), labels.detach()
            if self.labels.is_floating_point():
                self.labels.requires_grad_()
            logits = self.logits.unflatten(1, (networks, -1)).transpose(0, 1).flatten(0, 1)
            loss = mean_loss(logits, self.labels.flatten(0, 1), settings) * networks  # each has a mean of its own
            (self.delta,) = torch.autograd.grad(loss, self.logits, create_graph=True)
        self._back(_backward, self.delta.detach())

    @property
    def normalized(self) -> list[str]:
        """Names of the layers in `statistics`."""
        pairs = zip(self.instructions, self.layers, strict=True)
        return [step.name for step, layer in pairs if isinstance(layer, Normalized)]

    @property
    def statistics(self) -> list[Tensor]:
        """Mean and variance of each batch normalisation in training mode in turn, in the order of the forward pass."""
        return [value for layer in self._normalized() for value in (layer.mean, layer.variance)]

    def differentiate(self, statistics: Adjoints, *, in_weights: bool = False) -> Adjoints:
        """Tangent and reverse pass, once the directions are set: derivatives in the network's input and in the labels.

        Args:
            statistics: Derivative of what is differentiated in each of `statistics`; None where it does not depend on
                it.
            in_weights: Whether to find derivatives in the weights that the step started from, too: in the layers.
        """
        moved: list[Tensor | None] = [None]
        for step, layer in zip(self.instructions, self.layers, strict=True):
            moved.append(layer.tangent(*(moved[read] for read in step.reads)))
        for layer, mean, variance in zip(self._normalized(), statistics[::2], statistics[1::2], strict=True):
            if mean is not None and variance is not None:
                layer.statistics_adjoint = mean, variance
        last = moved[-1]
        wanted = [value for value in (self.logits, self.labels) if value.requires_grad]
        assert last is not None
        derivatives = pull_back(last, self.delta, wanted)
        reached = self._back(_reverse_with_weights if in_weights else _reverse, derivatives[0])
        return reached, derivatives[1] if len(derivatives) > 1 else None

    def _normalized(self) -> list[Normalized]:
        return [layer for layer in self.layers if isinstance(layer, Normalized)]

    def _back(self, part: Callable[[Layer, Tensor | None], Adjoints], adjoint: Tensor | None) -> Tensor | None:
        """Go through the layers from the last to the first; what reaches the network's input."""
        adjoints: dict[int, Tensor | None] = {len(self.layers): adjoint}
        for place in range(len(self.layers), 0, -1):
            step, layer = self.instructions[place - 1], self.layers[place - 1]
            found = part(layer, adjoints.pop(place, None))
            for read, value in zip(step.reads, found, strict=False):
                before = adjoints.get(read)
                adjoints[read] = value if before is None else before if value is None else before + value
        return adjoints.get(0)


def _backward(layer: Layer, delta: Tensor | None) -> Adjoints:
    # Before the first parameters no δ is asked for.
    return () if delta is None else layer.backward(delta)


def _reverse(layer: Layer, adjoint: Tensor | None) -> Adjoints:
    return layer.reverse(adjoint)


def _reverse_with_weights(layer: Layer, adjoint: Tensor | None) -> Adjoints:
    found = layer.reverse(adjoint)
    if isinstance(layer, ParameterLayer):
        layer.differentiate_weights(adjoint)
    return found
