"""The test whether a client's network saw images in [0, 1], as an attack takes them to be, or scaled ones.

Training code mostly scales its images (by the mean and deviation of ImageNet, say) outside of the network. An attack
that does not know of it searches in the wrong range, and finds less than there is. Where the first layer is a
convolution whose output is normalised, the update's batch statistics say what it saw. Of smooth images z, with S_oc the
sum of a filter's weights, its output has the mean b_o + Σ_c S_oc·E[z_c] and about the mean square

    Σ_cd S_oc·S_od·E[z_c·z_d] + g·(‖W_o‖² − ‖S_o‖²/k²)

around b_o, where g stands for all that is not smooth. Both are linear in what is unknown of the images. In [0, 1] a
square is no larger than its value, E[z²] ≤ E[z]; of scaled images it mostly is.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from leakpipe.attacks.observation import Observation
from leakpipe.attacks.one_step import normalized_layers
from leakpipe.attacks.recovered_statistics import recover_batch_statistics, weight_of_batches
from leakpipe.models.state import ModelState

BEYOND, ERRORS = 0.05, 3.0  # E[z²] − E[z] and its standard errors, above which images were not in [0, 1]
FILTERS = 2  # for each unknown, at least


@dataclass(frozen=True)
class SeenInput:
    """The values that the first layer saw, over all channels.

    Attributes:
        mean: Mean value.
        square: Mean square.
        error: Standard error of `square` less `mean`.
    """

    mean: float
    square: float
    error: float


def doubt_input_range(observation: Observation, images: Tensor) -> list[str]:
    """Returns what speaks against images in [0, 1], in sentences; none where the first layer does not tell.

    Args:
        images: Any that the network takes.
    """
    seen = measure_input(observation, images)
    if seen is None or seen.square - seen.mean <= BEYOND + ERRORS * seen.error:
        return []
    return [
        f"The first layer saw values of mean {seen.mean:.2g} and mean square {seen.square:.2g}, which images in [0, 1] "
        "do not have: if the client's code scales its images before the network (by a mean and a deviation), put that "
        "into the network's forward."
    ]


def measure_input(observation: Observation, images: Tensor) -> SeenInput | None:
    """Estimates the values that the first layer saw.

    Args:
        images: Any that the network takes.

    Returns:
        None where no convolution reads images as they are and is read by batch normalisation, or it has too few
        filters.
    """
    update, momentum = observation.update, observation.settings.batch_norm_momentum
    moved = any(bool(change.any()) for change in update.statistics.values())  # not those of frozen normalisation
    first = _first_convolution(observation.before, images) if moved else None
    if first is None:
        return None
    layer, norm = first
    statistics = recover_batch_statistics(observation.before, update, weight_of_batches(momentum, [update.steps]))
    weight = observation.before.weights[f"{layer}.weight"].double().flatten(2)  # (filters, channels, positions)
    filters, channels, positions = weight.shape
    pairs = torch.combinations(torch.arange(channels), with_replacement=True)
    if norm not in statistics or filters < FILTERS * (len(pairs) + 1):
        return None
    bias = observation.before.weights.get(f"{layer}.bias")
    mean = statistics[norm].mean.double() - (0 if bias is None else bias.double())
    sums = weight.sum(dim=2)
    own = pairs[:, 0] == pairs[:, 1]
    products = sums[:, pairs[:, 0]] * sums[:, pairs[:, 1]] * torch.where(own, 1, 2)
    rough = (weight.square().sum(dim=2) - sums.square() / positions).sum(dim=1, keepdim=True)
    means, mean_error = _estimate(sums, mean, torch.ones(channels) / channels)
    averaging = torch.cat([own / channels, torch.zeros(1)])
    squares, square_error = _estimate(
        torch.cat([products, rough], dim=1), statistics[norm].variance.double() + mean.square(), averaging
    )
    return SeenInput(means, squares, math.hypot(mean_error, square_error))


def _estimate(equations: Tensor, right: Tensor, averaging: Tensor) -> tuple[float, float]:
    """Returns an average of the least-squares solution, and its standard error."""
    inverse = torch.linalg.pinv(equations)
    solution, row = inverse @ right, averaging.double() @ inverse
    rest = (right - equations @ solution).square().sum() / (equations.shape[0] - equations.shape[1])
    return float(row @ right), float(row.norm() * rest.sqrt())


def _first_convolution(state: ModelState, images: Tensor) -> tuple[str, str] | None:
    """Returns the names of a convolution that reads the images themselves, and of the normalisation that reads it."""
    read: list[str] = []

    def note(name: str) -> object:
        return lambda _layer, inputs: read.append(name) if inputs[0] is images else None

    convolutions = [
        (name, layer)
        for name, layer in state.module.named_modules()
        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) and layer.groups == 1
    ]
    handles = [layer.register_forward_pre_hook(note(name)) for name, layer in convolutions]  # type: ignore[arg-type]
    try:
        normalized = normalized_layers(state, images)
    finally:
        for handle in handles:
            handle.remove()
    return next(((each.layer, each.norm) for each in normalized if each.layer in read), None)
