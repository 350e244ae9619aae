"""From recovered maps to the image: a search through the few layers below them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from leakpipe.attacks.recursive.below import Arrived, InputGradients
from leakpipe.attacks.recursive.forward import FixedNetwork
from leakpipe.attacks.recursive.layer import Layer
from leakpipe.attacks.recursive.structure import Chain
from leakpipe.attacks.spectrum import from_coefficients, to_coefficients

EDGE = 1e-6  # squared difference of neighbours, below which total variation is smooth
FITS = 0.03  # relative error of maps, below which total variation is what keeps images from them
OUTSIDE = 10.0  # weight of the mean squared distance to [0, 1]


@dataclass(frozen=True)
class ImageSettings:
    """How the image is searched.

    Attributes:
        maps: How many of the lowest recovered maps are matched.
        gradients: Weight of the squared relative distance of the weight gradients that tell of the lowest input.
        total_variation: Its weight in each stage, against a relative squared error of the maps.
        refinement: The same in further stages, for images that fit their maps to `FITS`.
        iterations: Of L-BFGS in each stage.
        history: Steps that L-BFGS remembers.
        decay: Exponent that divides an image's cosine coefficients by their frequency (`leakpipe.attacks.spectrum`).
    """

    maps: int = 3
    gradients: float = 1.0
    total_variation: tuple[float, ...] = (10.0, 3.0, 1.0, 0.5)
    refinement: tuple[float, ...] = (0.1, 0.01, 0.001)
    iterations: int = 300
    history: int = 30
    decay: float = 0.5


def search_image(
    chain: Chain,
    layers: Mapping[str, Layer],
    maps: Mapping[str, Tensor],
    start: Tensor,
    settings: ImageSettings,
    *,
    arrived: Arrived | None = None,
    on_stage: Callable[[float, Tensor], None] = lambda _error, _images: None,
) -> tuple[Tensor, float, float]:
    """Searches the images whose maps are the recovered ones, with batch normalisation at its known statistics.

    Args:
        chain: The network.
        layers: What is known of its units.
        maps: Recovered ones, by the names of the convolutions that read them.
        start: Images to start from, shape (batch, channels, height, width) in [0, 1].
        settings: How.
        arrived: Gradients at a block, where weight gradients below it are to be matched as well.
        on_stage: Called after each stage with the relative error of the maps, and the images.

    Returns:
        Images, the relative error of their maps, and that of the start's.
    """
    names = [unit.convolution for block in chain.blocks for unit in block.residual if unit.convolution in maps]
    names = names[: settings.maps]
    network = FixedNetwork(chain, layers, torch.float32)
    targets = {name: maps[name].float() for name in names}
    sizes = {name: float(targets[name].square().sum()) * len(names) for name in names}
    variables = to_coefficients(start.float(), settings.decay).requires_grad_()
    images, reached, first = start, float("nan"), float("nan")
    below = InputGradients(arrived, torch.float32) if arrived and settings.gradients else None
    for weight in (*settings.total_variation, *settings.refinement):
        if weight in settings.refinement and not reached < FITS:
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
            weight: float = weight,
            errors: list[float] = errors,
        ) -> float:
            optimizer.zero_grad()
            candidate = from_coefficients(variables, settings.decay)
            found = network.maps(candidate, [*names, *([below.first.name] if below else [])])
            error = torch.stack([(found[name] - targets[name]).square().sum() / sizes[name] for name in names]).sum()
            outside = (candidate - candidate.clamp(0, 1)).square().mean()
            objective = error + weight * smoothed_total_variation(candidate) + OUTSIDE * outside
            if below is not None:
                objective = objective + settings.gradients * below.distance(found[below.first.name])
            objective.backward()
            errors.append(float(error.detach()))
            return float(objective.detach())

        optimizer.step(measure)
        images = from_coefficients(variables.detach(), settings.decay).clamp(0, 1)
        reached = min(errors) ** 0.5
        first = errors[0] ** 0.5 if math.isnan(first) else first
        on_stage(reached, images)
    return images, reached, first


def smoothed_total_variation(images: Tensor) -> Tensor:
    """Returns the mean of √(Δ² + ε) over vertical plus horizontal neighbours."""
    vertical = images[..., 1:, :] - images[..., :-1, :]
    horizontal = images[..., :, 1:] - images[..., :, :-1]
    return (vertical.square() + EDGE).sqrt().mean() + (horizontal.square() + EDGE).sqrt().mean()
