"""The test whether the global model is the state before an update, and not the one after it.

What follows a layer whose channels go into batch normalisation alone does not change when its weights W are scaled, so
a gradient is orthogonal to W, and each step of SGD makes W longer (van Laarhoven 2017, section 2). Over one round,

    ρ = −⟨W, ΔW⟩ / ‖ΔW‖²

is 0 of one step, and (1 − Σ‖ΔW_k‖²/‖ΔW‖²)/2 < 1/2 of several steps ΔW_k. With the two files swapped, the observed W is
W + ΔW and the observed change is −ΔW, and ρ becomes 1 − ρ > 1/2. Adam's signs are no gradients, but hardly along W.
The drift of weight decay, which does shorten weights, is taken off first. Normalisation's ε breaks the rule where a
batch varies little: simulated updates show that.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from leakpipe.attacks.observation import Observation
from leakpipe.attacks.one_step import Normalized, normalized_layers
from leakpipe.attacks.plain_update import read_training
from leakpipe.attacks.plausible import Plausible
from leakpipe.client.update import ClientUpdate

HALF = 0.5  # between ρ of an update and of its reverse
ORDINARY = 0.4  # |ρ| of simulated updates, above which something else than steps of a scale-free layer makes it
ERRORS = 4.0  # standard errors, by the scatter over channels, that ρ lies above one half
LEAST_CHANNELS = 8


def doubt_order(observation: Observation, simulated: Plausible) -> list[str]:
    """Returns a sentence where the two states of an update look swapped."""
    layers = normalized_layers(observation.before, simulated.images)
    drawn = [norm_growth(observation, update, layers) for update in simulated.updates]
    if any(each is None or abs(each[0]) > ORDINARY for each in drawn):
        return []
    seen = norm_growth(observation, observation.update, layers)
    if seen is None or seen[0] - ERRORS * seen[1] <= HALF:
        return []
    return [
        "Normalised weights became shorter, as the believed training never makes them: the global model and the "
        "client's state are swapped, or there was more weight decay than training.optimizer says."
    ]


def norm_growth(
    observation: Observation, update: ClientUpdate, layers: Sequence[Normalized]
) -> tuple[float, float] | None:
    """Returns ρ over the channels of all layers, and its standard error; None where there are too few channels."""
    weights = observation.before.weights
    reading = read_training(weights, observation.settings, observation.update.steps)
    along, squares = list[Tensor](), list[Tensor]()
    for name in (f"{each.layer}.weight" for each in layers):
        if name not in update.weights:
            continue
        moved = reading.drifted(name, update.weights[name]).double().flatten(1)
        along.append(-(weights[name].double().flatten(1) * moved).sum(dim=1))
        squares.append(moved.square().sum(dim=1))
    if sum(map(len, along)) < LEAST_CHANNELS:
        return None
    products, norms = torch.cat(along), torch.cat(squares)
    total = float(norms.sum())
    if not total:
        return None
    share = float(products.sum()) / total
    return share, float((products - share * norms).norm()) / total
