"""The test whether one local step of SGD made an update, by batch normalisation and whatever the images were.

What follows a layer whose channels go into batch normalisation alone does not change when its weights are scaled, but
for ε (Ioffe and Szegedy 2015, section 3.3). With W_c its weights of channel c, γ_c and σ_c² the weight and the biased
batch variance of the normalisation, one step of SGD on one batch obeys

    ⟨W_c, ΔW_c⟩ = ε/(σ_c² + ε) · γ_c·Δγ_c

exactly: both sides are −η·γ_c·∂ℓ/∂γ_c·ε/(σ_c² + ε), and the running statistics give σ_c² away. Each of several steps is
orthogonal to the weights where it starts and not to those of the global model, so that inner products of gradients come
in, and the variance is recovered with another weight. Small gradients do not weaken this, since both sides shrink with
them; rounding of the update does.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from leakpipe.attacks.observation import Observation
from leakpipe.attacks.plain_update import read_training
from leakpipe.attacks.plausible import Plausible
from leakpipe.attacks.recovered_statistics import recover_batch_statistics, weight_of_batches
from leakpipe.client.optimizers import is_adaptive
from leakpipe.client.update import ClientUpdate, combine_updates
from leakpipe.models.batchnorm import batch_norm_layers
from leakpipe.models.state import ModelState, forward_training

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
HOLDS = 0.1  # gap of a simulated step, above which something else reads the layer, or precision is too low
LEAST = 0.01  # gap that float32 may leave of one step
FITS, MISFITS = 3.0, 10.0  # times the gap of simulated single steps: one step at most, and certainly no single one
ROUNDED = 3e-8  # standard deviation of a float32 weight's rounding, over the weight


@dataclass(frozen=True)
class Normalized:
    """A layer whose output is normalised.

    Attributes:
        layer: Its name.
        norm: Of the batch normalisation.
        values: Number of values per channel in the batch.
    """

    layer: str
    norm: str
    values: int


def examine_steps(observation: Observation, simulated: Plausible) -> tuple[list[str], bool]:
    """Compares an update with one step, and with what the believed training makes of plausible images.

    Returns:
        What speaks against the believed number of steps, in sentences, and whether it was checked that there was one
        step or that there were more.
    """
    steps, settings = observation.update.steps, observation.settings
    if not observation.update.statistics or is_adaptive(settings.training.optimizer):
        return [], False
    layers = [
        layer
        for layer in normalized_layers(observation.before, simulated.images)
        if equation_gap(observation, simulated.first_steps[0], [layer])[0] < HOLDS
    ]
    rounded = _is_rounded(observation)
    before = ClientUpdate(observation.before.weights, observation.before.statistics, 1)

    def alike(update: ClientUpdate) -> ClientUpdate:
        return combine_updates(_round, update, before) if rounded else update

    single = [equation_gap(observation, alike(update), layers)[0] for update in simulated.first_steps]
    believed = [equation_gap(observation, alike(update), layers)[0] for update in simulated.updates]
    most = max(LEAST, *single)
    seen, rounding = equation_gap(observation, observation.update, layers)
    rounding = rounding if rounded else 0.0
    if not layers or not math.isfinite(most):
        return [], False
    # Several steps miss the equation by more than `HOLDS`, unless rounding is larger still. They do in most layers: one
    # alone does where a batch happens to give it nearly no gradient.
    each = sorted(equation_gap(observation, observation.update, [layer])[0] for layer in layers)
    fits = seen < min(FITS * most, HOLDS)
    misfits = min(seen, each[(len(each) - 1) // 2]) > MISFITS * max(most, rounding)
    if steps > 1 and fits and FITS * most < min(believed):
        return [
            f"The update is one of a single local step, not of the believed {steps}: check the batch size, the epochs "
            "and the number of local steps."
        ], True
    if steps == 1 and misfits:
        return [
            "No single step of SGD makes this update, whatever the images: check the number of local steps, "
            f"batch_norm_momentum ({settings.batch_norm_momentum:g}), the update's sign, or whether a defence was "
            "applied."
        ], True
    if steps == 1:
        return [], fits
    return [], misfits and FITS * most < min(believed)


def normalized_layers(state: ModelState, images: Tensor) -> list[Normalized]:
    """Returns the layers whose output some batch normalisation with weights reads as it is, from one forward pass."""
    outputs: dict[int, tuple[str, Tensor]] = {}
    found: list[Normalized] = []

    def remember(name: str) -> Any:
        return lambda _layer, _inputs, output: outputs.__setitem__(id(output), (name, output))

    def match(name: str) -> Any:
        def hook(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            layer = outputs.get(id(inputs[0]), ("", None))[0]
            if f"{layer}.weight" in state.weights and f"{name}.weight" in state.weights:
                found.append(Normalized(layer, name, inputs[0].numel() // inputs[0].shape[1]))

        return hook

    layers = [(name, layer) for name, layer in state.module.named_modules() if isinstance(layer, LAYERS)]
    handles = [layer.register_forward_hook(remember(name)) for name, layer in layers]
    norms = batch_norm_layers(state.module)
    handles += [norm.register_forward_pre_hook(match(name)) for name, norm in norms.items()]
    try:
        with torch.no_grad():
            forward_training(state, images, differentiable=False)
    finally:
        for handle in handles:
            handle.remove()
    return found


def equation_gap(observation: Observation, update: ClientUpdate, layers: Sequence[Normalized]) -> tuple[float, float]:
    """Root mean square over channels of the gap between the equation's sides, each over ‖W_c‖·‖ΔW_c‖.

    Returns:
        It, and what rounding of weights to float32 would make of it; both over that of the right side.
    """
    before, settings = observation.before, observation.settings
    reading = read_training(before.weights, settings, 1)
    weight = weight_of_batches(settings.batch_norm_momentum, [1])
    recovered = recover_batch_statistics(before, update, weight)
    squares = torch.zeros(3, dtype=torch.float64, device="cpu")
    for each in layers:
        own, name = f"{each.layer}.weight", f"{each.norm}.weight"
        if own not in update.weights or name not in update.weights or each.norm not in recovered:
            continue
        weights, gamma = before.weights[own].double().flatten(1), before.weights[name].double()
        moved = reading.drifted(own, update.weights[own]).double().flatten(1)
        gamma_moved = reading.drifted(name, update.weights[name]).double()
        variance = recovered[each.norm].variance.double() * ((each.values - 1) / each.values)
        epsilon = float(before.module.get_submodule(each.norm).eps)  # type: ignore[arg-type]
        share = epsilon / (variance + epsilon) * gamma
        right = share * gamma_moved
        error = ROUNDED * torch.hypot(weights.square().norm(dim=1), share * gamma)
        parts = ((weights * moved).sum(dim=1) - right, error, right)
        unit = (weights.norm(dim=1) * moved.norm(dim=1)).clamp_min(torch.finfo(torch.float64).tiny)
        squares += torch.stack([(part / unit).square().sum() for part in parts]).cpu()
    gap, rounding, side = squares.sqrt().tolist()
    return (gap / side, rounding / side) if side else (math.inf, math.inf)


def _is_rounded(observation: Observation) -> bool:
    """Returns whether most of an update is what is left of a difference of rounded weights."""
    agree = total = 0
    for name, change in observation.update.weights.items():
        weight = observation.before.weights[name]
        # then sum and difference are exact (Sterbenz), but for some whose sign was flipped
        told = (change != 0) & (change.abs() <= weight.abs() / 2)
        agree += int((_round(change, weight) == change)[told].sum())
        total += int(told.sum())
    return 2 * agree >= total


def _round(change: Tensor, weight: Tensor) -> Tensor:
    return (weight + change) - weight
