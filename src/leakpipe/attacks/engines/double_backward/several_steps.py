"""The passes through several local steps: weights move in between, and what they do later comes back.

After the k-th step weights are W_{k+1} = W_k − η·g_k. The direction v of the summed gradient is that of every g_k; what
later steps' gradients and batch statistics make of W_{k+1} is added to it, times −η, from the last step to the first.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from leakpipe.attacks.distances import Products
from leakpipe.attacks.engines.double_backward.base import Adjoints
from leakpipe.attacks.engines.double_backward.gradients import Gradients, Parts
from leakpipe.attacks.engines.double_backward.local_step import LocalStep
from leakpipe.attacks.engines.double_backward.program import Instruction
from leakpipe.client.local_update import LocalSettings
from leakpipe.models.state import Tensors


class SeveralSteps:
    """The passes over one set of candidates, whose gradients are summed over the steps.

    Args:
        instructions: The network.
        weights: Before the first step.
        gradients: What the sums are compared with.
        schedule: Positions of the candidates in each step's batch.
        settings: How the client trains.
    """

    def __init__(
        self,
        instructions: Sequence[Instruction],
        weights: Tensors,
        gradients: Gradients,
        schedule: Sequence[Sequence[int]],
        settings: LocalSettings,
    ) -> None:
        self.instructions, self.weights, self.gradients = instructions, weights, gradients
        self.settings = settings
        self.batches = [torch.tensor(positions) for positions in schedule]
        kept = 1 - settings.batch_norm_momentum
        # Of each step's batch statistics in the new running ones, of all together 1 (`recover_batch_statistics`).
        self.shares = [
            settings.batch_norm_momentum * kept ** (len(schedule) - place - 1) / (1 - kept ** len(schedule))
            for place in range(len(schedule))
        ]

    def compare(self, network_input: Tensor, labels: Tensor) -> tuple[Products, list[Tensor]]:
        """As `OneStep`'s; the statistics are weighted means over the steps."""
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
        self.total = total
        rows = zip(*(step.statistics for step in self.steps), strict=True)
        means = [sum(share * value for share, value in zip(self.shares, row, strict=True)) for row in rows]
        return self.gradients.compare_sum(total), means

    @property
    def normalized(self) -> list[str]:
        """Names of the layers whose statistics `compare` returned."""
        return self.steps[0].normalized

    def differentiate(self, slopes: Products, statistics: Adjoints) -> Adjoints:
        """As `OneStep`'s."""
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
