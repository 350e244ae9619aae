"""From recovered maps to the image: a search through the few layers below them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leakpipe.attacks.recursive.below import InputGradients
from leakpipe.attacks.recursive.forward import FixedNetwork
from leakpipe.attacks.recursive.found import Descent
from leakpipe.attacks.recursive.newton import take_newton_step
from leakpipe.attacks.spectrum import from_coefficients, to_coefficients

EDGE = 1e-6  # squared difference of neighbours, below which total variation is smooth
GAIN = 0.2  # of the maps' relative error from stage to stage, below which the stages of refinement end
POLISH_GAIN = 0.05  # likewise, of `POLISH`
FLOOR = 0.01  # relative error, below which a map counts no more than at it
OUTSIDE = 10.0  # weight of the mean squared distance to [0, 1]
STATISTICS = 3.0  # weight of the batch statistics' distance against the maps' squared error, where results are compared
SOLVED = 1.5  # lengths of the maps' own errors, no more of which an image is believed to be the right one
LEAST_SOLVED = 0.03  # relative error of the maps, likewise
PRECISE = 0.03  # relative error of the maps, up to which batch statistics are believed to tell more of an image
DEEP = 8  # convolutions in front of the lowest map, beyond which slopes and statistics help in spite of a max-pool
PARTS = 12  # of all iterations, in each stage; half as many in those of a cycle
NEWTON_PARTS = 36  # likewise, in each Gauss–Newton step


@dataclass(frozen=True)
class Stage:
    """One stage of the search.

    Attributes:
        total_variation: Its weight, against a relative squared error of the maps, in units of the first stage's.
        softness: Of the stem's max-pool (`leakpipe.attacks.recursive.forward.soft_max_pool`).
        slope: Of ReLUs below 0.
        statistics: Weight of the distance to the update's batch statistics, below the recovered maps.
    """

    total_variation: float
    softness: float = 0.0
    slope: float = 0.0
    statistics: float = 0.0


POOLED = (  # softness falls twice: what a hard max-pool has settled on is given a second chance
    Stage(1.0, 1.0),
    Stage(0.3, 0.6),
    Stage(0.1, 0.4),
    Stage(0.03, 0.3),
    Stage(0.01, 0.3),
    Stage(0.01, 0.1),
    Stage(0.01, 0.05),
    Stage(0.01, 0.3),
    Stage(0.003, 0.1),
    Stage(0.003, 0.05),
    Stage(0.001, 0.03),
)
LEARNED = POOLED[-4:]  # from images that a learned inverse made of the maps
FINISH = (*(Stage(0.0003),) * 2, *(Stage(0.0001),) * 4, *(Stage(0.00003),) * 4)  # then, a Gauss–Newton step each
PLAIN = (  # of networks without a max-pool
    Stage(1.0, slope=0.3, statistics=1.0),
    Stage(0.3, slope=0.25, statistics=1.0),
    Stage(0.1, slope=0.2, statistics=1.0),
    Stage(0.03, slope=0.15, statistics=1.0),
    Stage(0.01, slope=0.1, statistics=1.0),
    Stage(0.003, slope=0.05, statistics=1.0),
    Stage(0.001, statistics=30.0),
    Stage(0.0003, statistics=30.0),
)
DEEP_POOLED = (  # of networks with a max-pool and many convolutions behind it, below the maps
    Stage(1.0, 1.0, slope=0.2, statistics=10.0),
    Stage(0.3, 0.6, slope=0.2, statistics=10.0),
    Stage(0.1, 0.4, slope=0.15, statistics=10.0),
    Stage(0.03, 0.3, slope=0.1, statistics=10.0),
    Stage(0.01, 0.1, slope=0.1, statistics=10.0),
    Stage(0.003, 0.05, slope=0.05, statistics=10.0),
    Stage(0.001, statistics=300.0),
    Stage(0.0003, statistics=300.0),
)
CYCLE = (
    Stage(0.003, slope=0.2, statistics=1.0),
    Stage(0.003, slope=0.13, statistics=1.0),
    Stage(0.003, slope=0.07, statistics=1.0),
    Stage(0.001, statistics=30.0),
    Stage(0.0003, statistics=30.0),
)
SOFTENED_CYCLE = tuple(
    replace(stage, softness=softness) for stage, softness in zip(CYCLE, (0.3, 0.2, 0.1, 0.05, 0.0), strict=True)
)
POLISH = (*(Stage(0.0001),) * 2, *(Stage(0.00003),) * 2, *(Stage(0.00001),) * 6)  # where cycles were softened


@dataclass(frozen=True)
class ImageSettings:
    """The search for the image.

    Attributes:
        maps: How many of the lowest recovered maps are matched.
        gradients: Weight of the squared relative distance of the weight gradients that tell of the lowest input.
        total_variation: Weight in the first stage.
        stages: None for those that the network takes: `POOLED` (`LEARNED` from learned images), `DEEP_POOLED` or
            `PLAIN`.
        refinement: Further stages, each as long as the one before has lowered the maps' error by `GAIN`.
        cycles: How often, at most, stages are run again (`CYCLE`, `SOFTENED_CYCLE`) where statistics take part, from
            the best images with noise on them, until the maps are matched.
        patience: Cycles in which nothing is gained, after which no more are run.
        noise: Deviation of that noise, without a max-pool and with one.
        iterations: Of L-BFGS in all stages of `POOLED` and its refinement; a 36th in each Gauss–Newton step, of LSMR.
        history: Steps that L-BFGS remembers.
        decay: Exponent that divides an image's cosine coefficients by their frequency (`leakpipe.attacks.spectrum`).
    """

    maps: int = 3
    gradients: float = 1.0
    total_variation: float = 10.0
    stages: tuple[Stage, ...] | None = None
    refinement: tuple[Stage, ...] = (Stage(0.0001),)
    cycles: int = 24
    patience: int = 8
    noise: tuple[float, float] = (0.05, 0.02)
    iterations: int = 1440
    history: int = 30
    decay: float = 0.5


@dataclass(frozen=True)
class Candidate:
    """Images after a stage of the search, or a cycle.

    Attributes:
        iterations: Of L-BFGS until then, as planned.
        error: Relative error of the images' maps against the recovered, weighted.
        gap: Distance of the batch statistics that take part (`FixedNetwork.run`).
        unbounded: The images, of which some pixels may be a little outside of [0, 1].
    """

    iterations: int
    error: float
    gap: float
    unbounded: Tensor

    @property
    def images(self) -> Tensor:
        """Images of shape (batch, channels, height, width) in [0, 1]."""
        return self.unbounded.clamp(0, 1)

    @property
    def misfit(self) -> float:
        """Squared distance from what the update tells, by which the candidates of cycles are compared."""
        return self.error**2 + STATISTICS * self.gap


class ImageSearch:
    """The search for the images whose maps are the recovered ones, with batch normalisation at its known statistics.

    Maps, and gradients beside them, count by the inverse square of their error, as far as that is known. Where maps are
    precise, and the network has no max-pool or many bottlenecks below them, the batch statistics of the layers on the
    way take part as well, and what does not match is started again. With a max-pool and few convolutions neither was
    found to help.

    Args:
        network: The network, at the statistics that the update gives away.
        found: Recovered maps, and gradients at a block, whose weight gradients are matched as well.
        settings: How.

    Attributes:
        matched: The units whose batch statistics take part.
        depth: Number of convolutions below the lowest map.
        is_deep: Whether the search goes through a max-pool and many bottlenecks to precise maps.
        is_pooled: Whether it goes through a max-pool without batch statistics, which leaves open what pixel of each
            window is the largest.
        is_exact: Whether the right images would match the maps to `FLOOR`, so that a closer match is worth something.
        solved: Relative error of the maps that the right images would have, at most.
        targets: The recovered maps that are matched, by the convolution that reads them, the lowest first.
        errors: Their relative errors.
    """

    def __init__(self, network: FixedNetwork, found: Descent, settings: ImageSettings) -> None:
        self.network, self.settings = network, settings
        trunk = [unit.convolution for unit in network.chain.trunk]
        names = [name for name in trunk if name in found.maps][: settings.maps]
        self.targets = {name: found.maps[name].float() for name in names}
        self.errors = errors = {name: found.report_of(name).error for name in names}
        weights = {name: (error**2 + FLOOR**2) ** -1 for name, error in errors.items()}
        total = sum(weights.values())
        self.sizes = {name: float(self.targets[name].square().sum()) * total / weights[name] for name in names}
        expected = (sum(weights[name] * errors[name] ** 2 for name in names) / total) ** 0.5
        self.solved = max(LEAST_SOLVED, SOLVED * expected)
        arrived = found.arrived if settings.gradients else None
        self.below = InputGradients(arrived, torch.float32) if arrived else None
        self.share = settings.gradients / (1 + (arrived.error / FLOOR) ** 2) if arrived else 0.0
        self.wanted = [*names, *([self.below.first.name] if self.below else [])]
        below = network.chain.trunk_before(self.wanted)
        chain, precise = network.chain, expected <= PRECISE
        self.depth = len(chain.trunk_before(names[:1]))
        self.is_deep = precise and chain.pooled and chain.has_bottlenecks and self.depth > DEEP
        takes_part = self.is_deep or (precise and not chain.pooled)
        self.matched = below if takes_part else []
        self.is_pooled = chain.pooled and not takes_part
        self.is_exact = expected <= FLOOR

    def candidates(self, start: Tensor, generator: torch.Generator, *, is_learned: bool = False) -> Iterator[Candidate]:
        """Yields what there is after each stage, and the best of all after each cycle.

        ReLUs have a slope at first, as images that turn other units on are local minima. An image cannot match the
        batch statistics of a network with slopes exactly, so they count more without.

        Args:
            start: Images to start from, shape (batch, channels, height, width) in [0, 1].
            generator: Draws the noise on what a cycle starts from.
            is_learned: Whether an inverse made them of the maps.
        """
        settings = self.settings
        part = max(1, settings.iterations // PARTS)
        pooled = self.network.chain.pooled
        deep, cycle = (DEEP_POOLED, SOFTENED_CYCLE) if pooled else (PLAIN, CYCLE)
        stages = settings.stages or (deep if not self.is_pooled else LEARNED if is_learned else POOLED)
        candidate, before = Candidate(0, float("inf"), 0.0, start.float()), float("inf")
        for number, stage in enumerate((*stages, *settings.refinement)):
            if number >= len(stages) and candidate.error > (1 - GAIN) * before:
                break
            before = candidate.error
            candidate = self.run(stage, candidate, part)
            yield candidate
        for stage in FINISH if is_learned and self.is_pooled and self.is_exact else ():
            candidate = self.run_newton(stage, candidate, max(1, settings.iterations // NEWTON_PARTS))
            yield candidate
        best, done, waited = candidate, candidate.iterations, 0
        for _ in range(settings.cycles if self.matched else 0):
            if best.error <= self.solved or waited == settings.patience:
                break
            noise = settings.noise[pooled] * torch.randn(start.shape, generator=generator)
            candidate = Candidate(done, best.error, best.gap, best.images + noise)
            for stage in cycle:
                candidate = self.run(stage, candidate, max(1, part // 2))
            done, waited = candidate.iterations, waited + 1
            if candidate.misfit < best.misfit:
                best, waited = candidate, 0
            best = replace(best, iterations=done)
            yield best
        for stage in POLISH if self.is_deep else ():
            candidate = self.run(stage, best, part)
            yield candidate
            if candidate.error > (1 - POLISH_GAIN) * best.error:
                return
            best = candidate

    @property
    def entries(self) -> int:
        """The number of entries of the maps that are matched."""
        return sum(target.numel() for target in self.targets.values())

    def compare(self, images: Tensor) -> float:
        """Returns the relative error of the images' maps against the recovered, weighted."""
        with torch.no_grad():
            error, _, _ = self._compare(images.float(), 0.0, 0.0)
        return float(error.sqrt())

    def run(self, stage: Stage, start: Candidate, iterations: int) -> Candidate:
        """Returns what a stage makes of images."""
        decay, weight = self.settings.decay, self.settings.total_variation * stage.total_variation
        statistics = stage.statistics if self.matched else 0.0
        variables = to_coefficients(start.unbounded, decay).requires_grad_()
        optimizer = torch.optim.LBFGS(
            [variables],
            max_iter=iterations,
            history_size=self.settings.history,
            line_search_fn="strong_wolfe",
            tolerance_grad=0,
            tolerance_change=0,
        )

        def measure() -> float:
            optimizer.zero_grad()
            images = from_coefficients(variables, decay)
            error, gap, maps = self._compare(images, stage.softness, stage.slope)
            outside = (images - images.clamp(0, 1)).square().mean()
            objective = error + weight * smoothed_total_variation(images) + OUTSIDE * outside + statistics * gap
            if self.below is not None:
                objective = objective + self.share * self.below.distance(maps[self.below.first.name])
            objective.backward()
            return float(objective.detach())

        optimizer.step(measure)
        return self._candidate(variables.detach(), stage, start.iterations + iterations)

    def run_newton(self, stage: Stage, start: Candidate, iterations: int) -> Candidate:
        """Returns what a Gauss–Newton step makes of images, of so many iterations of LSMR.

        Total variation is replaced by the squares that it is at most (iteratively reweighted least squares). Gradients
        beside the maps, slopes and statistics take no part.
        """
        decay, weight = self.settings.decay, self.settings.total_variation * stage.total_variation
        scales = [(step.square() + EDGE) ** -0.25 for step in neighbour_differences(start.unbounded)]

        def residuals(variables: Tensor) -> Tensor:
            images = from_coefficients(variables, decay)
            maps, _ = self.network.run(images, list(self.targets), softness=stage.softness)
            missed = [(maps[name] - target) / self.sizes[name] ** 0.5 for name, target in self.targets.items()]
            outside = (OUTSIDE / images.numel()) ** 0.5 * (images - images.clamp(0, 1))
            rough = [
                (weight / (2 * step.numel())) ** 0.5 * scale * step
                for step, scale in zip(neighbour_differences(images), scales, strict=True)
            ]
            return torch.cat([part.flatten() for part in (*missed, outside, *rough)])

        variables = take_newton_step(residuals, to_coefficients(start.unbounded, decay), iterations=iterations)
        return self._candidate(variables, stage, start.iterations + iterations)

    def _candidate(self, variables: Tensor, stage: Stage, iterations: int) -> Candidate:
        with torch.no_grad():
            images = from_coefficients(variables, self.settings.decay)
            error, gap, _ = self._compare(images, stage.softness, 0.0)
        return Candidate(iterations, float(error) ** 0.5, float(gap), images)

    def _compare(self, images: Tensor, softness: float, slope: float) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Returns the maps' weighted squared error, the distance of batch statistics, and the maps."""
        compared = [unit.convolution for unit in self.matched]
        maps, gap = self.network.run(images, self.wanted, softness=softness, slope=slope, compared=compared)
        errors = [(maps[name] - target).square().sum() / self.sizes[name] for name, target in self.targets.items()]
        return torch.stack(errors).sum(), gap, maps


def smoothed_total_variation(images: Tensor) -> Tensor:
    """Returns the mean of √(Δ² + ε) over vertical plus horizontal neighbours."""
    return torch.stack([(step.square() + EDGE).sqrt().mean() for step in neighbour_differences(images)]).sum()


def neighbour_differences(images: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the differences of vertical and of horizontal neighbours."""
    return images[..., 1:, :] - images[..., :-1, :], images[..., 1:] - images[..., :-1]
