"""The hand-written double backward as an engine: a function of images and labels that torch can differentiate."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from leakpipe.attacks.distances import DISTANCES, WITHOUT_DIFFERENCE, Products, of_either_sign, squared_lengths
from leakpipe.attacks.engines.double_backward.gradients import Gradients
from leakpipe.attacks.engines.double_backward.local_steps import OneStep, SeveralSteps
from leakpipe.attacks.engines.double_backward.program import Given, compile_network
from leakpipe.attacks.engines.engine import Engine, Explained, UnfitError, laid_out
from leakpipe.attacks.engines.released_tool import find_deviations
from leakpipe.attacks.plain_update import is_plain
from leakpipe.attacks.problem import Problem
from leakpipe.attacks.recovered_statistics import StatisticsByLayer
from leakpipe.client.local_update import LocalSettings
from leakpipe.models.batchnorm import BatchStatistics
from leakpipe.models.preprocessing import normalize_input
from leakpipe.models.state import ModelState, Tensors, forward_frozen, forward_training

MOST_TOGETHER = 16
WEIGHTS_TOGETHER, PIXELS_TOGETHER = 2**21, 2**14  # of all of them; more gain nothing and take memory


class DoubleBackward(Engine):
    """The distance of updates of one client, without a simulated update.

    The update is −η times the sum of its steps' gradients, which is compared with T = −ΔW/η.

    Raises:
        UnfitError: The training is not that of one client whose update is known as it is, or the network has a layer
            that the double backward does not know.
    """

    def __init__(self, problem: Problem) -> None:
        reason = _why_unfit(problem)
        if reason:
            raise UnfitError(reason)
        rate, objective = problem.assumed_training.learning_rate, problem.settings.objective
        targets = {name: value / -rate for name, value in problem.adapted_update.weights.items()}
        schedule = problem.trainings[0][0]
        differs = objective not in WITHOUT_DIFFERENCE
        compare = partial(
            Comparison, problem.model, targets, problem.assumed_training, schedule=schedule, differs=differs
        )
        self.comparison = cache(lambda restarts: compare(restarts=restarts))
        self.comparison(1)  # raises for an unknown layer
        if not next(iter(problem.model.module.parameters())).is_meta:
            _check_logits(problem)
        weights = sum(value.numel() for value in problem.model.weights.values())
        pixels = problem.observation.candidates * math.prod(problem.observation.image_shape[1:])
        most = MOST_TOGETHER if len(schedule) == 1 else 1
        self.together = max(1, min(most, WEIGHTS_TOGETHER // weights, PIXELS_TOGETHER // pixels))
        self.distance, self.either_sign = DISTANCES[objective], problem.either_sign
        scales = [problem.scales[name] * rate for name in targets]
        self.scales = torch.tensor(scales, dtype=torch.float64, device=problem.model.device).square()
        self.theirs = squared_lengths(targets) * self.scales

    def explain(self, images: Tensor, labels: Tensor, memory: Tensors) -> Explained:
        distances, found = self.explain_together(images[None], labels[None])
        measured = {name: BatchStatistics(layer.mean[0], layer.variance[0]) for name, layer in found.items()}
        return Explained(distances[0], measured or None, memory=memory)  # frozen batch normalisation measures none

    def explain_together(self, images: Tensor, labels: Tensor) -> tuple[Tensor, StatisticsByLayer]:
        found = self.comparison(len(images)).compare(images, labels)
        distances = self.distance(found.products.scaled(self.scales), self.theirs)
        return of_either_sign(distances) if self.either_sign else distances, found.statistics


def _why_unfit(problem: Problem) -> str | None:
    """Why the double backward cannot compare updates; None where it can."""
    adapted = problem.adapted_update
    if find_deviations(problem.settings):
        return "it does not know the released tool's deviations"
    if len(problem.observation.image_shape) > 3:
        return "it knows images, not volumes"
    if problem.observation.cohort:
        return "it knows the update of one client, not an aggregate"
    if len(problem.trainings) > 1:
        return f"it knows one order of the batches, not an average over {len(problem.trainings)}"
    if not is_plain(problem.assumed_training.training):
        return "it knows plain SGD in float32, and one step of what only scales or shifts that"
    if adapted.weight_bounds or adapted.statistic_bounds or problem.clipped is not None:
        return "it knows exact updates, not updates within bounds"
    return None


def _check_logits(problem: Problem) -> None:
    """Raises `UnfitError` unless a network of the user's own gives the logits of the layers that were found in it.

    Hooks, branches and shapes that change with the batch are not seen when a forward pass is followed.
    """
    model, settings = problem.model, problem.assumed_training
    exact = model.with_tensors(
        *({n: v.double() for n, v in part.items()} for part in (model.weights, model.statistics))
    )
    shape = (len(problem.trainings[0][0][0]), *problem.observation.image_shape)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(shape, generator=generator, dtype=torch.float64, device="cpu").to(model.device)
    try:
        found = Comparison(exact, {}, settings).logits(images)
    except (RuntimeError, TypeError, ValueError, AttributeError, LookupError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UnfitError(f"the layers of the network's forward pass cannot be run one by one ({reason})") from error
    with torch.no_grad():
        expected = (
            forward_frozen(exact, images)
            if settings.batch_norm == "frozen"
            else forward_training(exact, images, differentiable=False)[0]
        )
    if found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-6, atol=1e-9):
        raise UnfitError("the layers of the network's forward pass give other logits than the network (it has hooks?)")


@dataclass(frozen=True)
class ComparedGradients:
    """The candidates' loss gradients compared with their targets, and the batch statistics on the way.

    Attributes:
        products: Of each restart's gradients and the targets, in the order of `Comparison`'s targets.
        statistics: By layer name; means and variances of shape (restarts, channels). Empty where batch normalisation
            is frozen.
    """

    products: Products
    statistics: Mapping[str, BatchStatistics]


class Comparison:
    """The local steps of a client on candidates, compared with the gradients that they should have had.

    The candidates of each restart get a copy of the network, and all copies run side by side as one network.

    Args:
        model: The client's before the first step.
        targets: By parameter name, summed over the steps; parameters that are missing are not compared.
        settings: How the client trains.
        schedule: Positions of the candidates in each step's batch; None is one step on all of them.
        differs: Whether ‖gradient − target‖² is needed.
        restarts: How many are compared at once; one where there are several steps.

    Raises:
        UnfitError: The double backward does not know a layer of the model.
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
            return {name: laid_out(torch.cat([value.detach()] * restarts)) for name, value in tensors.items()}

        wanted = {name: laid_out(value) for name, value in targets.items()}
        given = Given(
            running=copied(model.statistics) if settings.batch_norm == "frozen" else None,
            targets=wanted,
            formed=differs or self.schedule is not None,
            networks=restarts,
        )
        program = compile_network(model.module, model.weights, given)
        self.instructions, self.normalizes = program.instructions, program.normalizes
        self.weights = copied(model.weights)
        self.gradients = Gradients(self.instructions, model.weights, wanted, networks=restarts, differs=differs)

    def compare(self, images: Tensor, labels: Tensor) -> ComparedGradients:
        """Compares candidates' gradients with the targets; differentiable in images and labels.

        Args:
            images: Shape (restarts, images, 1 or 3, height, width) in [0, 1].
            labels: Of each restart as in `leakpipe.client.local_update.Batch`, shape (restarts, images[, classes]).
        """
        run = self._steps()
        network_input = normalize_input(images.flatten(0, 1)) if self.normalizes else images.flatten(0, 1)
        apart = network_input.unflatten(0, (self.restarts, -1))
        inner, squared, gaps, *found = _Compare.apply(apart.transpose(0, 1).flatten(1, 2), labels, run)
        channels = [value.unflatten(0, (self.restarts, -1)) for value in found]
        pairs = zip(run.normalized, channels[::2], channels[1::2], strict=True)
        statistics = {name: BatchStatistics(mean, variance) for name, mean, variance in pairs}
        return ComparedGradients(Products(inner, squared, gaps), statistics)

    def logits(self, images: Tensor) -> Tensor:
        """The logits of one network's images, by the layers that the double backward runs."""
        values = [normalize_input(images) if self.normalizes else images]
        for step in self.instructions:
            values.append(step.make(self.weights, *(values[read] for read in step.reads)).output)
        return values[-1]

    def _steps(self) -> OneStep:
        if self.schedule is None:
            return OneStep(self.instructions, self.weights, self.gradients, self.settings)
        return SeveralSteps(self.instructions, self.weights, self.gradients, self.settings, self.schedule)


class _Compare(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, network_input: Tensor, labels: Tensor, run: OneStep) -> tuple[Tensor | None, ...]:
        ctx.run, ctx.restarts = run, len(labels)  # type: ignore[attr-defined]
        ctx.set_materialize_grads(False)
        products, statistics = run.compare(network_input, labels)
        # Detached, because torch lets results hold the run: if the run held them, too, it would never be freed.
        return *products, *(value.detach() for value in statistics)

    @staticmethod
    def backward(ctx: FunctionCtx, *adjoints: Tensor | None) -> tuple[Tensor | None, ...]:
        run: OneStep = ctx.run  # type: ignore[attr-defined]
        order, restarts = run.gradients.order, ctx.restarts  # type: ignore[attr-defined]
        nothing = torch.zeros(restarts, len(order), dtype=torch.float64, device=order.device)
        inner, squared = (nothing if value is None else value for value in adjoints[:2])
        images, labels = run.differentiate(Products(inner, squared, adjoints[2]), adjoints[3:])
        return images, labels, None
