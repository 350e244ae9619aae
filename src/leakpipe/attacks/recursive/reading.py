"""From an observation to what each layer's part of it says."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from leakpipe.attacks.observation import Observation
from leakpipe.attacks.plain_update import read_training, what_loses_length
from leakpipe.attacks.recovered_statistics import recover_batch_statistics, weight_of_batches
from leakpipe.attacks.recursive.forward import FixedNetwork
from leakpipe.attacks.recursive.layer import Layer
from leakpipe.attacks.recursive.refine import add_measured_noise
from leakpipe.attacks.recursive.structure import Chain
from leakpipe.attacks.rounding import spacing
from leakpipe.errors import LeakpipeError
from leakpipe.models.batchnorm import mean_name, variance_name
from leakpipe.models.state import ModelState, forward_frozen

ALIKE = 1e-3  # of a map's maximum: two ways to compute it in float32
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
    shape = (observation.client.images, *observation.image_shape)
    drawn = torch.rand(shape, generator=torch.Generator().manual_seed(0), device="cpu")
    images = drawn.to(before.device)
    watched = _watch(before, images)
    modules = dict(before.module.named_modules())

    def gradient(name: str) -> Tensor:
        return read.gradient(name, update.weights[name])

    def rounding(name: str) -> Tensor:
        sent = spacing(_as_sent(update.weights[name]))
        spacings = torch.stack([spacing(before.weights[name]).clamp_min(TINIEST), sent])
        deviations: Tensor = spacings.norm(dim=0) / (12**0.5 * gain)
        return deviations

    layers = {}
    for unit in chain.units:
        convolution, normalization = modules.get(unit.convolution), modules.get(unit.normalization)
        if not (isinstance(convolution, nn.Conv2d) and isinstance(normalization, nn.BatchNorm2d)):
            raise LeakpipeError(
                f"recursive inversion expects a convolution {unit.convolution} with batch normalisation "
                f"{unit.normalization} behind it; the model has none"
            )
        if unit.convolution not in watched:
            raise LeakpipeError(f"recursive inversion: the network never calls its layer {unit.convolution}")
        taken, given = _shape(watched[unit.convolution].read), _shape(watched[unit.convolution].given)
        positions = given[0] * given[2] * given[3]
        seen = statistics[unit.normalization]
        variance = seen.variance.double() * ((positions - 1) / positions)
        layers[unit.convolution] = Layer(
            name=unit.convolution,
            weight=before.weights[f"{unit.convolution}.weight"].double(),
            gradient=gradient(f"{unit.convolution}.weight"),
            weight_noise=rounding(f"{unit.convolution}.weight"),
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
    _check(chain, layers, before, images, watched)
    return add_measured_noise(layers)


def _as_sent(values: Tensor) -> Tensor:
    """Returns numbers in the lowest precision that holds them all, in which they must have been sent."""
    for dtype in (torch.bfloat16, torch.float16):
        lower = values.to(dtype)
        if bool((lower.to(values.dtype) == values).all()):
            return lower
    return values


@dataclass(frozen=True)
class _Seen:
    """The input and output of one convolution."""

    read: Tensor
    given: Tensor


def _shape(features: Tensor) -> tuple[int, int, int, int]:
    batch, channels, height, width = features.shape
    return batch, channels, height, width


def _watch(state: ModelState, images: Tensor) -> dict[str, _Seen]:
    """Returns what every convolution does in a forward pass with batch normalisation at its running statistics."""
    seen: dict[str, _Seen] = {}

    def note(name: str, read: Tensor, given: Tensor) -> None:
        seen[name] = _Seen(read, given)

    handles = [
        layer.register_forward_hook(lambda _layer, inputs, output, name=name: note(name, inputs[0], output))
        for name, layer in state.module.named_modules()
        if isinstance(layer, nn.Conv2d)
    ]
    try:
        with torch.no_grad():
            forward_frozen(state, images)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _check(
    chain: Chain, layers: Mapping[str, Layer], state: ModelState, images: Tensor, seen: Mapping[str, _Seen]
) -> None:
    """Compares the chain's own forward pass with the network's: names alone do not tell what a network computes."""
    running = {}
    for unit in chain.units:
        mean, variance = (state.statistics[name(unit.normalization)].double() for name in (mean_name, variance_name))
        running[unit.convolution] = replace(layers[unit.convolution], mean=mean, variance=variance)
    names = [unit.convolution for block in chain.blocks for unit in block.residual]
    try:
        with torch.no_grad():
            maps = FixedNetwork(chain, running, state, images.dtype).maps(images, names)
        wrong = [
            name
            for name in names
            if not torch.allclose(
                maps[name], seen[name].read, rtol=ALIKE, atol=ALIKE * float(seen[name].read.abs().max())
            )
        ]
    except RuntimeError:  # shapes that do not fit
        wrong = names
    if wrong:
        raise LeakpipeError(
            f"recursive inversion knows residual networks by their layers' names, but in {type(state.module).__name__} "
            f"{wrong[0]} reads something else than it would in torchvision's"
        )
