"""How well candidates explain an update, through the passes: a function of images that torch can differentiate."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from leakpipe.attacks.objectives import Products
from leakpipe.attacks.passes.base import Adjoints, Layer
from leakpipe.attacks.passes.gradients import Gradients
from leakpipe.attacks.passes.program import Given, compile_network
from leakpipe.attacks.passes.weighted import Normalized
from leakpipe.federation.local import LocalSettings, mean_loss
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
    """One local step of a client on candidates, compared with the gradients that it should have had.

    Restarts of an attack have candidates of their own: each gets a copy of the network, and all copies run side by
    side as one network.

    Args:
        model: The client's before the step.
        targets: By parameter name; parameters that are missing are not compared.
        settings: How the client trains.
        differs: Whether ‖gradient − target‖² is asked for.
        restarts: How many are explained at once.

    Raises:
        UnknownLayerError: The passes do not know a layer of the model.
    """

    def __init__(
        self, model: ModelState, targets: Tensors, settings: LocalSettings, *, differs: bool = False, restarts: int = 1
    ) -> None:
        self.settings, self.restarts = settings, restarts

        def copied(tensors: Tensors) -> dict[str, Tensor]:
            return {name: _laid_out(torch.cat([value.detach()] * restarts)) for name, value in tensors.items()}

        given = Given(
            weights=copied(model.weights),
            running=copied(model.statistics) if settings.batch_norm == "frozen" else None,
            targets={name: _laid_out(value) for name, value in targets.items()},
            differs=differs,
            networks=restarts,
        )
        program = compile_network(model.module, given)
        self.instructions, self.normalizes = program.instructions, program.normalizes
        self.gradients = Gradients(self.instructions, model.weights, targets, networks=restarts)

    def explain(self, images: Tensor, labels: Tensor) -> Explained:
        """Compare candidates' gradients with the targets; differentiable in images and labels.

        Args:
            images: Shape (restarts, images, 1 or 3, height, width) in [0, 1].
            labels: Of each restart as in `leakpipe.federation.local.Batch`, shape (restarts, images[, classes]).
        """
        run = _Run(self)
        network_input = normalize_input(images.flatten(0, 1)) if self.normalizes else images.flatten(0, 1)
        apart = network_input.unflatten(0, (self.restarts, -1))
        inner, squared, gaps, *found = _Explain.apply(apart.transpose(0, 1).flatten(1, 2), labels, run)
        channels = [value.unflatten(0, (self.restarts, -1)) for value in found]
        pairs = zip(run.normalized, channels[::2], channels[1::2], strict=True)
        statistics = {name: BatchStatistics(mean, variance) for name, mean, variance in pairs}
        return Explained(Products(inner, squared, gaps), statistics)


class _Run:
    """The passes over one set of candidates."""

    def __init__(self, explainer: Explainer) -> None:
        self.instructions, self.settings = explainer.instructions, explainer.settings
        self.gradients, self.restarts = explainer.gradients, explainer.restarts
        self.layers: list[Layer] = []

    @property
    def normalized(self) -> list[str]:
        """Names of the batch-normalisation layers in the order of the forward pass."""
        pairs = zip(self.instructions, self.layers, strict=True)
        return [step.name for step, layer in pairs if isinstance(layer, Normalized)]

    @property
    def statistics(self) -> list[Tensor]:
        """Mean and variance of each of them in turn."""
        layers = [layer for layer in self.layers if isinstance(layer, Normalized)]
        return [value for layer in layers for value in (layer.mean, layer.variance)]

    def compare(self, network_input: Tensor, labels: Tensor) -> Products:
        """Forward and backward pass.

        Args:
            network_input: Shape (images, restarts · channels, height, width).
            labels: Of each restart.
        """
        values = [network_input.contiguous(memory_format=torch.channels_last)]
        for step in self.instructions:
            self.layers.append(step.make(*(values[read] for read in step.reads)))
            values.append(self.layers[-1].output)
        with torch.enable_grad():
            self.logits, self.labels = values[-1].detach().requires_grad_(), labels.detach()
            if self.labels.is_floating_point():
                self.labels.requires_grad_()
            logits = self.logits.unflatten(1, (self.restarts, -1)).transpose(0, 1).flatten(0, 1)
            loss = mean_loss(logits, self.labels.flatten(0, 1), self.settings) * self.restarts  # each its own mean
            (self.delta,) = torch.autograd.grad(loss, self.logits, create_graph=True)
        self._back(_backward, self.delta.detach())
        return self.gradients.compare(self.layers)

    def differentiate(self, slopes: Products, statistics: Adjoints) -> Adjoints:
        """Tangent and reverse pass: derivatives in the network's input and in the labels.

        Args:
            slopes: Of what is differentiated in each of the products.
            statistics: In each of `statistics`; None where it does not depend on it.
        """
        self.gradients.aim(self.layers, slopes)
        moved: list[Tensor | None] = [None]
        for step, layer in zip(self.instructions, self.layers, strict=True):
            moved.append(layer.tangent(*(moved[read] for read in step.reads)))
        normalized = [layer for layer in self.layers if isinstance(layer, Normalized)]
        for layer, mean, variance in zip(normalized, statistics[::2], statistics[1::2], strict=True):
            if mean is not None and variance is not None:
                layer.statistics_adjoint = mean, variance
        last = moved[-1]
        wanted = [value for value in (self.logits, self.labels) if value.requires_grad]
        assert last is not None
        with torch.enable_grad():
            along = (self.delta * last).sum()
        derivatives = torch.autograd.grad(along, wanted, allow_unused=True)
        reached = self._back(_reverse, derivatives[0])
        return reached, derivatives[1] if len(derivatives) > 1 else None

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


class _Explain(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, network_input: Tensor, labels: Tensor, run: _Run) -> tuple[Tensor | None, ...]:
        ctx.run = run  # type: ignore[attr-defined]
        ctx.set_materialize_grads(False)
        found = run.compare(network_input, labels)
        # Not the tensors that the run holds: torch lets results hold the run, which then would never be freed.
        return *found, *(value.detach() for value in run.statistics)

    @staticmethod
    def backward(ctx: FunctionCtx, *adjoints: Tensor | None) -> tuple[Tensor | None, ...]:
        run: _Run = ctx.run  # type: ignore[attr-defined]
        nothing = torch.zeros(run.restarts, len(run.gradients.order), dtype=torch.float64)
        inner, squared = (nothing if value is None else value for value in adjoints[:2])
        images, labels = run.differentiate(Products(inner, squared, adjoints[2]), adjoints[3:])
        return images, labels, None


def _laid_out(value: Tensor) -> Tensor:
    """In the memory format that convolutions of few images are fastest in."""
    return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value.contiguous()
