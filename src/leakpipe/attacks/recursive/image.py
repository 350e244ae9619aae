"""From recovered maps to the image: a search through the few layers below them."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from leakpipe.attacks.recursive.below import InputGradients
from leakpipe.attacks.recursive.forward import FixedNetwork
from leakpipe.attacks.recursive.found import Descent
from leakpipe.attacks.spectrum import from_coefficients, to_coefficients

EDGE = 1e-6  # squared difference of neighbours, below which total variation is smooth
GAIN = 0.2  # of the maps' relative error from stage to stage, below which no further stage is tried
FLOOR = 0.01  # relative error, below which a map counts no more than at it
OUTSIDE = 10.0  # weight of the mean squared distance to [0, 1]


@dataclass(frozen=True)
class Stage:
    """One stage of the search.

    Attributes:
        total_variation: Its weight, against a relative squared error of the maps.
        softness: Of the stem's max-pool (`leakpipe.attacks.recursive.forward.soft_max_pool`).
    """

    total_variation: float
    softness: float = 0.0


@dataclass(frozen=True)
class ImageSettings:
    """The search for the image.

    Attributes:
        maps: How many of the lowest recovered maps are matched.
        gradients: Weight of the squared relative distance of the weight gradients that tell of the lowest input.
        stages: Softness falls twice: what a hard max-pool has settled on is given a second chance.
        refinement: Further stages, each as long as the one before has lowered the maps' error by `GAIN`.
        iterations: Of L-BFGS in each stage.
        history: Steps that L-BFGS remembers.
        decay: Exponent that divides an image's cosine coefficients by their frequency (`leakpipe.attacks.spectrum`).
    """

    maps: int = 3
    gradients: float = 1.0
    stages: tuple[Stage, ...] = (
        Stage(10.0, 1.0),
        Stage(3.0, 0.6),
        Stage(1.0, 0.4),
        Stage(0.3, 0.3),
        Stage(0.1, 0.3),
        Stage(0.1, 0.1),
        Stage(0.1, 0.05),
        Stage(0.1, 0.3),
        Stage(0.03, 0.1),
        Stage(0.03, 0.05),
        Stage(0.01, 0.03),
    )
    refinement: tuple[Stage, ...] = (Stage(0.001),)
    iterations: int = 120
    history: int = 30
    decay: float = 0.5


def search_image(
    network: FixedNetwork,
    found: Descent,
    start: Tensor,
    settings: ImageSettings,
) -> Iterator[tuple[float, Tensor]]:
    """Searches the images whose maps are the recovered ones, with batch normalisation at its known statistics.

    Maps, and gradients beside them, count by the inverse square of their error, as far as that is known.

    Args:
        network: The network, at the statistics that the update gives away.
        found: Recovered maps, and gradients at a block, whose weight gradients are matched as well.
        start: Images to start from, shape (batch, channels, height, width) in [0, 1].
        settings: How.

    Yields:
        After each stage, the weighted relative error of the images' maps, and the images.
    """
    names = [
        unit.convolution for block in network.chain.blocks for unit in block.residual if unit.convolution in found.maps
    ]
    names = names[: settings.maps]
    targets = {name: found.maps[name].float() for name in names}
    weights = {report.layer: (report.error**2 + FLOOR**2) ** -1 for report in found.reports if report.layer in names}
    total = sum(weights.values())
    sizes = {name: float(targets[name].square().sum()) * total / weights[name] for name in names}
    variables = to_coefficients(start.float(), settings.decay).requires_grad_()
    below = InputGradients(found.arrived, torch.float32) if found.arrived and settings.gradients else None
    share = settings.gradients / (1 + (found.arrived.error / FLOOR) ** 2) if found.arrived else 0.0
    reached = before = float("inf")
    for number, stage in enumerate((*settings.stages, *settings.refinement)):
        if number >= len(settings.stages) and reached > (1 - GAIN) * before:
            break
        optimizer = torch.optim.LBFGS(
            [variables],
            max_iter=settings.iterations,
            history_size=settings.history,
            line_search_fn="strong_wolfe",
            tolerance_grad=0,
            tolerance_change=0,
        )
        errors: list[float] = []

        def measure(
            optimizer: torch.optim.LBFGS = optimizer,
            stage: Stage = stage,
            errors: list[float] = errors,
        ) -> float:
            optimizer.zero_grad()
            candidate = from_coefficients(variables, settings.decay)
            wanted = [*names, *([below.first.name] if below else [])]
            maps = network.maps(candidate, wanted, softness=stage.softness)
            error = torch.stack([(maps[name] - targets[name]).square().sum() / sizes[name] for name in names]).sum()
            outside = (candidate - candidate.clamp(0, 1)).square().mean()
            objective = error + stage.total_variation * smoothed_total_variation(candidate) + OUTSIDE * outside
            if below is not None:
                objective = objective + share * below.distance(maps[below.first.name])
            objective.backward()
            errors.append(float(error.detach()))
            return float(objective.detach())

        optimizer.step(measure)
        before, reached = reached, min(errors) ** 0.5
        yield reached, from_coefficients(variables.detach(), settings.decay).clamp(0, 1)


def smoothed_total_variation(images: Tensor) -> Tensor:
    """Returns the mean of √(Δ² + ε) over vertical plus horizontal neighbours."""
    vertical = images[..., 1:, :] - images[..., :-1, :]
    horizontal = images[..., :, 1:] - images[..., :, :-1]
    return (vertical.square() + EDGE).sqrt().mean() + (horizontal.square() + EDGE).sqrt().mean()
