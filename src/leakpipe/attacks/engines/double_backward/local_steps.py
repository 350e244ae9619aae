"""The four passes through a network for the local steps of a client on candidates.

With several steps, weights move in between. After the k-th step weights are
W_{k+1} = W_k − η·g_k. The direction v of the summed gradient is that of every g_k; the derivatives of later steps'
gradients and batch statistics in W_{k+1} are added to it, times −η, from the last step to the first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from leakpipe.attacks.distances import Products
from leakpipe.attacks.engines.double_backward.base import Adjoints, Layer, pull_back
from leakpipe.attacks.engines.double_backward.gradients import Gradients, Parts
from leakpipe.attacks.engines.double_backward.program import Instruction
from leakpipe.attacks.engines.double_backward.weighted import Normalized, ParameterLayer
from leakpipe.client.local_update import LocalSettings
from leakpipe.client.losses import training_loss
from leakpipe.models.state import Tensors


class LocalStep:
    """One step; the forward and the backward pass make it, and it keeps what the other two need.

    Args:
        instructions: The network.
        weights: Where the step starts, of all networks side by side.
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
            loss = training_loss(logits, self.labels.flatten(0, 1), settings.training.loss)
            if settings.training.loss.reduction == "mean":
                loss = loss * networks  # each has a mean of its own
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
            statistics: Derivative of the differentiated function in each of `statistics`; None where it does not
                depend on it.
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
        """Goes through the layers from the last to the first and returns the adjoint of the network's input."""
        adjoints: dict[int, Tensor | None] = {len(self.layers): adjoint}
        for place in range(len(self.layers), 0, -1):
            step, layer = self.instructions[place - 1], self.layers[place - 1]
            found = part(layer, adjoints.pop(place, None))
            for read, value in zip(step.reads, found, strict=False):
                before = adjoints.get(read)
                adjoints[read] = value if before is None else before if value is None else before + value
        return adjoints.get(0)


def _backward(layer: Layer, delta: Tensor | None) -> Adjoints:
    # Before the first parameters no δ is needed.
    return () if delta is None else layer.backward(delta)


def _reverse(layer: Layer, adjoint: Tensor | None) -> Adjoints:
    return layer.reverse(adjoint)


def _reverse_with_weights(layer: Layer, adjoint: Tensor | None) -> Adjoints:
    found = layer.reverse(adjoint)
    if isinstance(layer, ParameterLayer):
        layer.differentiate_weights(adjoint)
    return found


@dataclass
class OneStep:
    """The four passes over one set of candidates for each of the restarts."""

    instructions: Sequence[Instruction]
    weights: Tensors
    gradients: Gradients
    settings: LocalSettings

    def compare(self, network_input: Tensor, labels: Tensor) -> tuple[Products, list[Tensor]]:
        """Gradients next to their targets, and mean and variance of each batch normalisation in training mode."""
        self.step = LocalStep(self.instructions, self.weights, network_input, labels, self.settings)
        return self.gradients.compare(self.step.layers), self.step.statistics

    @property
    def normalized(self) -> list[str]:
        """Names of the layers whose statistics `compare` returned."""
        return self.step.normalized

    def differentiate(self, slopes: Products, statistics: Adjoints) -> Adjoints:
        """Derivatives in the network's input and in the labels.

        Args:
            slopes: Derivative of the differentiated function in each of the products.
            statistics: Its derivative in each of the statistics; None where it does not depend on them.
        """
        self.gradients.aim(self.step.layers, slopes)
        return self.step.differentiate(statistics)


@dataclass
class SeveralSteps(OneStep):
    """The four passes over one set of candidates, whose gradients are summed over the steps.

    Attributes:
        schedule: Positions of the candidates in each step's batch.
    """

    schedule: Sequence[Sequence[int]]

    def __post_init__(self) -> None:
        device = next(iter(self.weights.values())).device
        self.batches = [torch.tensor(positions, device=device) for positions in self.schedule]
        momentum, steps = self.settings.batch_norm_momentum, len(self.schedule)
        kept = 1 - momentum
        # Of each step's batch statistics in the new running ones, of all together 1 (`recover_batch_statistics`).
        self.shares = [momentum * kept ** (steps - place - 1) / (1 - kept**steps) for place in range(steps)]

    def compare(self, network_input: Tensor, labels: Tensor) -> tuple[Products, list[Tensor]]:
        """As `OneStep.compare`; the statistics are weighted means over the steps."""
        self.steps: list[LocalStep] = []
        self.network_input, self.labels = network_input, labels
        weights, total = self.weights, None
        for batch in self.batches:
            step = LocalStep(self.instructions, weights, network_input[batch], labels[:, batch], self.settings)
            found = self.gradients.formed(step.layers)
            total = found if total is None else _added(total, found)
            moves = self.gradients.by_name(found)
            rate = self.settings.learning_rate
            weights = {name: weight.sub(moves[name], alpha=rate) for name, weight in weights.items()}
            self.steps.append(step)
        assert total is not None
        self.step, self.total = self.steps[0], total
        rows = zip(*(step.statistics for step in self.steps), strict=True)
        means = [sum(share * value for share, value in zip(self.shares, row, strict=True)) for row in rows]
        return self.gradients.compare_sum(total), means

    def differentiate(self, slopes: Products, statistics: Adjoints) -> Adjoints:
        """As `OneStep.differentiate`."""
        direction = self.gradients.direction(self.total, slopes)
        in_images = torch.zeros_like(self.network_input)
        in_labels = torch.zeros_like(self.labels) if self.labels.is_floating_point() else None
        in_weights: Parts | None = None
        places = range(len(self.steps))
        for place, step, batch, share in reversed([*zip(places, self.steps, self.batches, self.shares, strict=True)]):
            along = direction
            if in_weights is not None:
                along = _added(direction, in_weights, alpha=-self.settings.learning_rate)
            self.gradients.aim_along(step.layers, along)
            parts = tuple(value if value is None else share * value for value in statistics)
            images, labels = step.differentiate(parts, in_weights=place > 0)
            if images is not None:
                in_images.index_add_(0, batch, images)
            if in_labels is not None and labels is not None:
                in_labels.index_add_(1, batch, labels)
            if place > 0:
                found = self.gradients.adjoints(step.layers)
                in_weights = found if in_weights is None else _added(in_weights, found)
        return in_images, in_labels


def _added(first: Parts, second: Parts, *, alpha: float = 1.0) -> Parts:
    return [one.add(other, alpha=alpha) for one, other in zip(first, second, strict=True)]
