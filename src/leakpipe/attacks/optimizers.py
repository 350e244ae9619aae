"""Steps from gradients: pure functions of the optimizer state, so that a search can be stopped and continued.

Ours, because torch's optimisers import its compiler on first use, which takes longer (4 s) than a whole attack
on a small image, and because their state does not travel as plain tensors. Values and gradients have shape
(restarts, variables); every restart moves by itself.
"""

import math

import torch
from torch import Tensor

from leakpipe.models.state import Tensors
from leakpipe.params.attack_settings import AttackSettings

FIRST_DECAY, SECOND_DECAY, STABILITY = 0.9, 0.999, 1e-8  # Adam's published constants
HISTORY = 100  # pairs that L-BFGS keeps, as torch does


def initial_optimizer_state(settings: AttackSettings, values: Tensor) -> dict[str, Tensor]:
    """Returns an optimizer's memory before its first step."""
    if settings.optimizer != "lbfgs":
        return {"first": torch.zeros_like(values), "second": torch.zeros_like(values)}
    restarts, size = values.shape
    return {
        "moves": values.new_zeros(restarts, 0, size),
        "changes": values.new_zeros(restarts, 0, size),
        "scale": values.new_ones(restarts),
        "gradient": torch.zeros_like(values),
        "step": torch.zeros_like(values),
    }


def take_step(
    settings: AttackSettings,
    values: Tensor,
    gradient: Tensor,
    state: Tensors,
    *,
    iteration: int,
    iterations: int,
    since_start: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """New values and optimizer state.

    Args:
        iteration: Number of this step in its part of the search, from 1; it sets the size of the step.
        iterations: Of that part.
        since_start: Number of this step since the optimizer state was initial, from 1.
    """
    size = step_size(settings, iteration, iterations)
    if settings.optimizer == "lbfgs":
        return _lbfgs_step(values, gradient, state, size=size, first=since_start == 1)
    if settings.optimizer == "signed-adam":
        gradient = gradient.sign()
    elif settings.optimizer == "soft-signed-adam":
        softness = 1 - (iteration - 1) / iterations
        gradient = (softness * gradient).tanh() / softness
    if settings.optimizer == "adamw":
        values = values * (1 - size * settings.weight_decay)
    first = FIRST_DECAY * state["first"] + (1 - FIRST_DECAY) * gradient
    second = SECOND_DECAY * state["second"] + (1 - SECOND_DECAY) * gradient.square()
    direction = (first / (1 - FIRST_DECAY**since_start)) / (
        (second / (1 - SECOND_DECAY**since_start)).sqrt() + STABILITY
    )
    return values - size * direction, {"first": first, "second": second}


def step_size(settings: AttackSettings, iteration: int, iterations: int) -> float:
    """Step of the iteration numbered from 1 of `iterations`: warm-up, then decayed by `settings.schedule`."""
    done = (iteration - 1) / iterations
    size = settings.step_size * min(1.0, iteration / settings.warmup if settings.warmup else 1.0)
    if settings.schedule == "cosine":
        return size * 0.5 * (1 + math.cos(math.pi * done))
    if settings.schedule == "steps":
        return float(size * 0.1 ** sum(done >= milestone for milestone in (3 / 8, 5 / 8, 7 / 8)))
    if settings.schedule == "warm-restarts":
        cycles = max(1, int(math.log2(iterations / settings.first_cycle + 1)))
        place = (iteration - 1) * (2**cycles - 1) / iterations  # in units of the first cycle
        cycle = int(math.log2(place + 1))
        share = (place - (2**cycle - 1)) / 2**cycle
        return size * settings.cycle_decay**cycle * 0.5 * (1 + math.cos(math.pi * share))
    return size


def _lbfgs_step(
    values: Tensor, gradient: Tensor, state: Tensors, *, size: float, first: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """L-BFGS (Liu and Nocedal 1989) without a line search, as torch's: the first step is at most 1 long in L1."""
    if first:
        shortened = (1 / gradient.abs().sum(dim=1, keepdim=True)).clamp_max(1.0)
        step = -size * shortened * gradient
        return values + step, {**state, "gradient": gradient, "step": step}
    move, change = state["step"], gradient - state["gradient"]
    curvature = (move * change).sum(dim=1)
    accepted = curvature > 1e-10
    keep = accepted[:, None].to(values.dtype)  # a refused pair is kept as zeros, which change nothing
    moves = torch.cat([state["moves"], (keep * move)[:, None]], dim=1)[:, -HISTORY:]
    changes = torch.cat([state["changes"], (keep * change)[:, None]], dim=1)[:, -HISTORY:]
    scale = torch.where(accepted, curvature / change.square().sum(dim=1).clamp_min(1e-30), state["scale"])
    step = size * _two_loops(gradient, moves, changes, scale)
    return values + step, {"moves": moves, "changes": changes, "scale": scale, "gradient": gradient, "step": step}


def _two_loops(gradient: Tensor, moves: Tensor, changes: Tensor, scale: Tensor) -> Tensor:
    """−H·gradient for the inverse Hessian H that the pairs imply."""
    products = (moves * changes).sum(dim=2)
    inverse = torch.where(products > 0, 1 / products.clamp_min(1e-30), 0.0)
    direction, shares = -gradient, []
    for pair in reversed(range(moves.shape[1])):
        share = inverse[:, pair] * (moves[:, pair] * direction).sum(dim=1)
        direction = direction - share[:, None] * changes[:, pair]
        shares.append(share)
    direction = scale[:, None] * direction
    for pair, share in enumerate(reversed(shares)):
        back = inverse[:, pair] * (changes[:, pair] * direction).sum(dim=1)
        direction = direction + (share - back)[:, None] * moves[:, pair]
    return direction
