"""How well candidates explain an update, through the passes: a function of images that torch can differentiate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from leakpipe.attacks.distances import Products
from leakpipe.attacks.engines.double_backward.base import Adjoints
from leakpipe.attacks.engines.double_backward.gradients import Gradients
from leakpipe.attacks.engines.double_backward.local_step import LocalStep
from leakpipe.attacks.engines.double_backward.program import Given, Instruction, compile_network
from leakpipe.attacks.engines.double_backward.several_steps import SeveralSteps
from leakpipe.client.local_update import LocalSettings
from leakpipe.models.batchnorm import BatchStatistics
from leakpipe.models.preprocessing import normalize_input
from leakpipe.models.state import ModelState, Tensors


@dataclass(frozen=True)
class Explained:
    """What the candidates' loss gradients are, next to their targets, and the batch statistics on the way.

    Attributes:
        products: Of each restart's gradients and the targets, in the order of `Explainer`'s targets.
        statistics: By layer name; means and variances of shape (restarts, channels). Empty where batch normalisation
            is frozen.
    """

    products: Products
    statistics: Mapping[str, BatchStatistics]


class Explainer:
    """The local steps of a client on candidates, compared with the gradients that they should have had.

    Restarts of an attack have candidates of their own: each gets a copy of the network, and all copies run side by
    side as one network.

    Args:
        model: The client's before the first step.
        targets: By parameter name, summed over the steps; parameters that are missing are not compared.
        settings: How the client trains.
        schedule: Positions of the candidates in each step's batch; None is one step on all of them.
        differs: Whether ‖gradient − target‖² is asked for.
        restarts: How many are explained at once; of several steps one.

    Raises:
        UnknownLayerError: The passes do not know a layer of the model.
    """

    def __init__(
        self,
        model: ModelState,
        targets: Tensors,
        settings: LocalSettings,
        *,
        schedule: Sequence[Sequence[int]] | None = None,
        differs: bool = False,
        restarts: int = 1,
    ) -> None:
        self.settings, self.restarts = settings, restarts
        self.schedule = schedule if schedule is not None and len(schedule) > 1 else None

        def copied(tensors: Tensors) -> dict[str, Tensor]:
            return {name: _laid_out(torch.cat([value.detach()] * restarts)) for name, value in tensors.items()}

        laid_out = {name: _laid_out(value) for name, value in targets.items()}
        given = Given(
            running=copied(model.statistics) if settings.batch_norm == "frozen" else None,
            targets=laid_out,
            formed=differs or self.schedule is not None,
            networks=restarts,
        )
        program = compile_network(model.module, given)
        self.instructions, self.normalizes = program.instructions, program.normalizes
        self.weights = copied(model.weights)
        self.gradients = Gradients(self.instructions, model.weights, laid_out, networks=restarts, differs=differs)

    def explain(self, images: Tensor, labels: Tensor) -> Explained:
        """Compare candidates' gradients with the targets; differentiable in images and labels.

        Args:
            images: Shape (restarts, images, 1 or 3, height, width) in [0, 1].
            labels: Of each restart as in `leakpipe.client.local_update.Batch`, shape (restarts, images[, classes]).
        """
        run = self._steps()
        network_input = normalize_input(images.flatten(0, 1)) if self.normalizes else images.flatten(0, 1)
        apart = network_input.unflatten(0, (self.restarts, -1))
        inner, squared, gaps, *found = _Explain.apply(apart.transpose(0, 1).flatten(1, 2), labels, run)
        channels = [value.unflatten(0, (self.restarts, -1)) for value in found]
        pairs = zip(run.normalized, channels[::2], channels[1::2], strict=True)
        statistics = {name: BatchStatistics(mean, variance) for name, mean, variance in pairs}
        return Explained(Products(inner, squared, gaps), statistics)

    def _steps(self) -> "OneStep | SeveralSteps":
        if self.schedule is None:
            return OneStep(self.instructions, self.weights, self.gradients, self.settings)
        return SeveralSteps(self.instructions, self.weights, self.gradients, self.schedule, self.settings)


@dataclass
class OneStep:
    """The passes over one set of candidates for each of the restarts."""

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
            slopes: Of what is differentiated in each of the products.
            statistics: In each of the statistics; None where it does not depend on it.
        """
        self.gradients.aim(self.step.layers, slopes)
        return self.step.differentiate(statistics)


class _Explain(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, network_input: Tensor, labels: Tensor, run: OneStep | SeveralSteps
    ) -> tuple[Tensor | None, ...]:
        ctx.run, ctx.restarts = run, len(labels)  # type: ignore[attr-defined]
        ctx.set_materialize_grads(False)
        products, statistics = run.compare(network_input, labels)
        # Not the tensors that the run holds: torch lets results hold the run, which then would never be freed.
        return *products, *(value.detach() for value in statistics)

    @staticmethod
    def backward(ctx: FunctionCtx, *adjoints: Tensor | None) -> tuple[Tensor | None, ...]:
        run: OneStep | SeveralSteps = ctx.run  # type: ignore[attr-defined]
        nothing = torch.zeros(ctx.restarts, len(run.gradients.order), dtype=torch.float64)  # type: ignore[attr-defined]
        inner, squared = (nothing if value is None else value for value in adjoints[:2])
        images, labels = run.differentiate(Products(inner, squared, adjoints[2]), adjoints[3:])
        return images, labels, None


def _laid_out(value: Tensor) -> Tensor:
    """In the memory format that convolutions of few images are fastest in."""
    return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value.contiguous()
