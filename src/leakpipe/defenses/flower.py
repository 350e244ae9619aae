"""Flower's central differential privacy: clients clip what they send, and the server adds noise to the mean.

The noise comes after the server has seen every update, so it protects nobody from the server (flwr 1.42,
`serverapp.strategy.DifferentialPrivacyClientSide…Clipping` and `clientapp.mod`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from leakpipe.client.update import ClientUpdate
from leakpipe.defenses.noise import with_gaussian_noise
from leakpipe.defenses.values import batch_counters, change_values, flatten_values
from leakpipe.errors import LeakpipeError
from leakpipe.models.batchnorm import batch_norm_layers, variance_name
from leakpipe.models.state import ModelState
from leakpipe.params.defenses import DefenseSteps, FlowerAdaptiveClippingParams, FlowerFixedClippingParams


def clip_as_flower(update: ClientUpdate, params: FlowerFixedClippingParams) -> ClientUpdate:
    """Scales the update down to an L2 norm of at most `clipping_norm` (fixedclipping_mod, adaptiveclipping_mod).

    Counters of batches count in the norm and are passed on as they are. They rise by at least 1 per layer, so a norm
    below that scales the other values far below it. No guarantee: the direction is unchanged.
    """
    norm = _norm(update, params)
    if norm <= params.clipping_norm:
        return update
    return change_values(update, lambda value: (value.double() * (params.clipping_norm / norm)).to(value.dtype))


def clip_in_first_round(update: ClientUpdate, params: FlowerAdaptiveClippingParams) -> ClientUpdate:
    """Scales the update as the adaptive clipping does in the first round, whose norm needs no earlier one."""
    return clip_as_flower(update, _at_first(params))


def _at_first(params: FlowerAdaptiveClippingParams, *, noise_multiplier: float = 0.0) -> FlowerFixedClippingParams:
    return FlowerFixedClippingParams(
        kind="flower-fixed-clipping",
        clipping_norm=params.initial_clipping_norm,
        noise_multiplier=noise_multiplier,
        count_batches=params.count_batches,
    )


def _norm(update: ClientUpdate, params: FlowerFixedClippingParams) -> float:
    counted = float(batch_counters(update).norm()) if params.count_batches else 0.0
    return math.hypot(float(flatten_values(update).norm()), counted)


@dataclass(frozen=True)
class FlowerServer:
    """The server's part of a defence: it says the norm that clients clip to and adds noise to their mean.

    Attributes:
        steps: What clients do in this round: an adaptive clipping is one of a fixed norm.
        adaptive: The adaptive clipping, if the defence has one.
        clients: How many clients take part in a round.
    """

    steps: DefenseSteps
    adaptive: FlowerAdaptiveClippingParams | None
    clients: int

    @classmethod
    def start(cls, defense: DefenseSteps, *, clients: int) -> "FlowerServer":
        """Returns the server before the first round.

        Raises:
            LeakpipeError: The noise on the number of clipped updates is too small for the noise on their mean.
        """
        adaptive = next((step for step in defense.root if isinstance(step, FlowerAdaptiveClippingParams)), None)
        if adaptive is None:
            return cls(defense, None, clients)
        fixed = _at_first(adaptive, noise_multiplier=effective_multiplier(adaptive, clients))
        return cls(DefenseSteps(tuple(fixed if step is adaptive else step for step in defense.root)), adaptive, clients)

    @property
    def clipping(self) -> FlowerFixedClippingParams | None:
        """The clipping of this round; None where the defence has none."""
        return next((step for step in self.steps.root if isinstance(step, FlowerFixedClippingParams)), None)

    def release(self, state: ModelState, *, generator: torch.Generator) -> ModelState:
        """Returns the averaged model with N(0, (zC/clients)²) on every value; as it is without such a defence.

        Variances that the noise makes negative become 0, as in `average_updates`; Flower leaves them.
        """
        clipping = self.clipping
        if clipping is None or clipping.noise_multiplier == 0:
            return state
        scale = clipping.noise_multiplier * clipping.clipping_norm / self.clients
        weights, statistics = (
            {name: with_gaussian_noise(value, scale, generator) for name, value in part.items()}
            for part in (state.weights, state.statistics)
        )
        for layer in batch_norm_layers(state.module):
            statistics[variance_name(layer)].clamp_(min=0)
        return state.with_tensors(weights, statistics)

    def next_round(self, shared: Sequence[ClientUpdate], *, generator: torch.Generator) -> "FlowerServer":
        """Returns the server with the norm of the next round: C·exp(−rate·(share clipped − quantile)) (Andrew 2021)."""
        clipping, adaptive = self.clipping, self.adaptive
        if clipping is None or adaptive is None:
            return self
        reached = clipping.clipping_norm * (1 - 1e-6)  # what was clipped has this norm, or more with its counters
        clipped = sum(_norm(update, clipping) >= reached for update in shared)
        noise = count_deviation(adaptive, self.clients) * torch.randn((), generator=generator, device="cpu").item()
        excess = (clipped + noise) / self.clients - adaptive.target_clipped_quantile
        norm = clipping.clipping_norm * math.exp(-adaptive.clip_norm_lr * excess)
        moved = clipping.model_copy(update={"clipping_norm": norm})
        steps = DefenseSteps(tuple(moved if step is clipping else step for step in self.steps.root))
        return replace(self, steps=steps)


def count_deviation(params: FlowerAdaptiveClippingParams, clients: int) -> float:
    """Returns the deviation of the noise on the number of clipped updates."""
    if params.clipped_count_stddev is not None:
        return params.clipped_count_stddev
    return clients / 20 if params.noise_multiplier > 0 else 0.0


def effective_multiplier(params: FlowerAdaptiveClippingParams, clients: int) -> float:
    """Returns the noise multiplier of updates: (z⁻² − (2·deviation of the count)⁻²)^(−1/2) (Andrew 2021, theorem 1)."""
    deviation = count_deviation(params, clients)
    if params.noise_multiplier == 0:
        return 0.0
    if params.noise_multiplier >= 2 * deviation:
        raise LeakpipeError(
            f"flower-adaptive-clipping: noise_multiplier {params.noise_multiplier} must be below twice the deviation "
            f"of the noise on the number of clipped updates ({deviation:g}, by default clients / 20); raise "
            "clipped_count_stddev or lower noise_multiplier"
        )
    return float((params.noise_multiplier**-2 - (2 * deviation) ** -2) ** -0.5)
