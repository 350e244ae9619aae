"""From an observation to what each layer's part of it says."""

import torch
from torch import Tensor, nn

from leakpipe.attacks.observation import Observation
from leakpipe.attacks.plain_update import read_training, what_loses_length
from leakpipe.attacks.recovered_statistics import recover_batch_statistics, weight_of_batches
from leakpipe.attacks.recursive.layer import Layer
from leakpipe.attacks.recursive.structure import Chain
from leakpipe.errors import LeakpipeError
from leakpipe.models.state import ModelState, forward_training

TINIEST = 1e-12  # spacing of weights that start at 0


def read_layers(observation: Observation, chain: Chain) -> dict[str, Layer]:
    """Returns what the update tells about every unit of the chain, by the convolution's name.

    The loss's gradient is −ΔW/η of one local step of plain SGD, and what `read_training` makes of other steps; the
    batch statistics are those that the running ones give away.

    Raises:
        LeakpipeError: The update is of several local steps or clients, or lacks the running statistics, or its
            optimiser left little more of the gradient than signs.
    """
    if observation.update.steps != 1 or observation.cohort:
        raise LeakpipeError("recursive inversion needs the update of one client's single local step")
    if observation.update.removed:
        raise LeakpipeError(
            f"recursive inversion needs whole updates; removed are {sorted(observation.update.removed)}"
        )
    if not observation.update.statistics:
        raise LeakpipeError("recursive inversion needs running statistics in the update, but they are withheld")
    before, update, settings = observation.before, observation.update, observation.settings
    read = read_training(before.weights, settings, 1)
    if read.gain is None:
        lost = what_loses_length(settings.training)
        raise LeakpipeError(f"recursive inversion needs the gradient's values, but {lost} leaves only their direction")
    gain = read.gain
    statistics = recover_batch_statistics(before, update, weight_of_batches(settings.batch_norm_momentum, [1]))
    shapes = _measure_shapes(before, (observation.client.images, *observation.image_shape))
    modules = dict(before.module.named_modules())

    def gradient(name: str) -> Tensor:
        return read.gradient(name, update.weights[name])

    def rounding(name: str) -> Tensor:
        weights = before.weights[name]
        spacing = torch.nextafter(weights.abs(), torch.full_like(weights, torch.inf)) - weights.abs()
        return spacing.double().clamp_min(TINIEST) / (12**0.5 * gain)

    layers = {}
    for unit in chain.units:
        convolution, normalization = modules[unit.convolution], modules[unit.normalization]
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(normalization, nn.BatchNorm2d)
        taken, given = shapes[unit.convolution]
        positions = given[0] * given[2] * given[3]
        seen = statistics[unit.normalization]
        variance = seen.variance.double() * ((positions - 1) / positions)
        layers[unit.convolution] = Layer(
            name=unit.convolution,
            weight=before.weights[f"{unit.convolution}.weight"].double(),
            gradient=gradient(f"{unit.convolution}.weight"),
            stride=convolution.stride[0],
            padding=int(convolution.padding[0]),
            scale=before.weights[f"{unit.normalization}.weight"].double(),
            shift=before.weights[f"{unit.normalization}.bias"].double(),
            scale_gradient=gradient(f"{unit.normalization}.weight"),
            shift_gradient=gradient(f"{unit.normalization}.bias"),
            gradient_noise=torch.stack(
                [rounding(f"{unit.normalization}.bias"), rounding(f"{unit.normalization}.weight")], dim=1
            ),
            mean=seen.mean.double(),
            variance=variance.clamp_min(0),
            epsilon=normalization.eps,
            input_shape=taken,
            output_shape=given,
        )
    return layers


Shape = tuple[int, int, int, int]


def _measure_shapes(state: ModelState, images: Shape) -> dict[str, tuple[Shape, Shape]]:
    """Shapes of what each convolution reads and gives, of a forward pass of flat images."""
    shapes: dict[str, tuple[Shape, Shape]] = {}

    def note(name: str, read: Tensor, given: Tensor) -> None:
        shapes[name] = tuple(read.shape), tuple(given.shape)  # type: ignore[assignment]

    handles = [
        layer.register_forward_hook(lambda _layer, inputs, output, name=name: note(name, inputs[0], output))
        for name, layer in state.module.named_modules()
        if isinstance(layer, nn.Conv2d)
    ]
    try:
        with torch.no_grad():
            forward_training(state, torch.zeros(images), differentiable=False)
    finally:
        for handle in handles:
            handle.remove()
    return shapes
