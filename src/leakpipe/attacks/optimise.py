"""The inversion loop that every attack runs on; presets only choose its settings."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from leakpipe.attacks.objectives import cosine_distance
from leakpipe.attacks.observation import Observation, recover_batch_statistics
from leakpipe.attacks.regularizers import batch_statistics_distance, total_variation
from leakpipe.federation.local import LocalSettings, local_update, make_batches
from leakpipe.params import AttackSettings

FIRST_DECAY, SECOND_DECAY, STABILITY = 0.9, 0.999, 1e-8  # Adam's published constants
CURVE_POINTS = 100
NOISE_MEAN, NOISE_DEVIATION = 0.45, 0.225  # of ImageNet pixels, where "inverting-gradients" starts


@dataclass(frozen=True)
class Reconstruction:
    """What an attack got.

    Attributes:
        images: Shape (images, channels, height, width) in [0, 1]: the best iterate by the attack's own
            objective, never by the truth.
        objective: The objective there; None where it was never finite.
        iterations: Optimiser steps taken.
        curves: Value of every term at `curves["iteration"]` (at most about 100 points).
        notes: What a reader must know (a term that could not be used), in sentences.
    """

    images: Tensor
    objective: float | None
    iterations: int
    curves: dict[str, list[float]]
    notes: list[str] = field(default_factory=list)


def invert(
    observation: Observation,
    settings: AttackSettings,
    *,
    seed: int,
    on_iteration: Callable[[int, float], None] = lambda _iteration, _objective: None,
) -> Reconstruction:
    """Search the images whose simulated local training explains the observed update.

    Minimises, over candidates x̂ in [0, 1] (Hatamizadeh 2023; cosine as Geiping 2020),

        (1 − cos(ΔŴ(x̂), ΔW)) + α_BN · batch_statistics_distance + α_TV · total_variation(x̂)

    where ΔŴ(x̂) is `local_update` on the candidates: what the client would have sent for them.

    Args:
        seed: Fixes the random start.
        on_iteration: Called after every step with the step's number (from 1) and the objective.

    Returns:
        The best candidates. An objective that stops being finite (noise can do it) ends the search and is
        noted; what was best until then is kept.
    """
    terms, notes = _build_terms(observation, settings)
    candidates = _start_candidates(observation, settings, torch.Generator().manual_seed(seed))
    stepper = _Adam(settings, candidates)
    best, best_objective = candidates, math.inf
    curves: dict[str, list[float]] = {}
    iterations = 0
    every = max(1, settings.iterations // CURVE_POINTS)
    for iteration in range(1, settings.iterations + 1):
        candidates.requires_grad_()
        objective, values = terms(candidates)
        (gradient,) = torch.autograd.grad(objective, candidates)
        candidates = candidates.detach()
        reached = objective.item()
        if not (math.isfinite(reached) and torch.isfinite(gradient).all()):
            notes.append(f"Diverged: the objective or its gradient is not finite at iteration {iteration}.")
            break
        if reached < best_objective:
            best, best_objective = candidates, reached
        if iteration % every == 0 or iteration in (1, settings.iterations):
            for name, value in {"iteration": iteration, "objective": reached, **values}.items():
                curves.setdefault(name, []).append(float(value))
        candidates = stepper.step(candidates, gradient, iteration).clamp(0, 1)
        on_iteration(iteration, reached)
        iterations = iteration
    return Reconstruction(best, best_objective if math.isfinite(best_objective) else None, iterations, curves, notes)


def _build_terms(
    observation: Observation, settings: AttackSettings
) -> tuple[Callable[[Tensor], tuple[Tensor, dict[str, float]]], list[str]]:
    """The objective as a function of candidates: weighted total, and each term by itself as a number."""
    notes: list[str] = []
    client = observation.settings
    belief = LocalSettings(
        learning_rate=client.learning_rate,
        batch_norm_momentum=client.batch_norm_momentum,
        batch_norm="training" if settings.batch_norm == "update" else "frozen",
    )
    match_update = any(bool(value.any()) for value in observation.update.weights.values())
    if not match_update:
        notes.append("The observed weight differences are all zero: only the other terms were used.")
    match_statistics = settings.batch_norm == "update" and settings.batch_norm_weight > 0
    target = (
        recover_batch_statistics(observation.before, observation.update, client.batch_norm_momentum)
        if match_statistics
        else {}
    )
    left_out = sum(int((layer.variance <= 0).sum()) for layer in target.values())
    if left_out:
        notes.append(f"{left_out} channels with a recovered variance that is not positive were left out.")

    def terms(candidates: Tensor) -> tuple[Tensor, dict[str, float]]:
        batches = make_batches(candidates, observation.labels, observation.schedule)
        simulated = local_update(observation.before, batches, belief)
        variation = total_variation(candidates)
        objective = settings.total_variation_weight * variation
        values = {"total_variation": variation.item()}
        if match_update:
            distance = cosine_distance(simulated.weights, observation.update.weights)
            objective = objective + distance
            values["update_distance"] = distance.item()
        if match_statistics:
            recovered = recover_batch_statistics(observation.before, simulated, client.batch_norm_momentum)
            gap = batch_statistics_distance(recovered, target)
            objective = objective + settings.batch_norm_weight * gap
            values["batch_statistics"] = gap.item()
        return objective, values

    return terms, notes


def _start_candidates(observation: Observation, settings: AttackSettings, generator: torch.Generator) -> Tensor:
    start = observation.prior
    noise = torch.randn(start.shape, generator=generator, dtype=start.dtype)
    if settings.start == "noise":
        return (NOISE_MEAN + NOISE_DEVIATION * noise).clamp(0, 1)
    jitter = settings.start_jitter if len(start) > 1 else 0.0
    return (start + jitter * noise).clamp(0, 1)


class _Adam:
    """Adam (Kingma 2015), on the gradient or on its sign.

    Ours, because torch's optimisers import its compiler on first use, which takes longer (4 s) than a
    whole attack on a small image.
    """

    def __init__(self, settings: AttackSettings, like: Tensor) -> None:
        self.settings = settings
        self.first = torch.zeros_like(like)
        self.second = torch.zeros_like(like)

    def step(self, values: Tensor, gradient: Tensor, iteration: int) -> Tensor:
        """New values after the step numbered `iteration` (from 1)."""
        if self.settings.optimizer == "signed-adam":
            gradient = gradient.sign()
        self.first = FIRST_DECAY * self.first + (1 - FIRST_DECAY) * gradient
        self.second = SECOND_DECAY * self.second + (1 - SECOND_DECAY) * gradient.square()
        first = self.first / (1 - FIRST_DECAY**iteration)
        second = self.second / (1 - SECOND_DECAY**iteration)
        return values - step_size(self.settings, iteration) * first / (second.sqrt() + STABILITY)


def step_size(settings: AttackSettings, iteration: int) -> float:
    """Step of the iteration numbered from 1: full at first, decayed by `settings.schedule`."""
    done = (iteration - 1) / settings.iterations
    if settings.schedule == "cosine":
        return settings.step_size * 0.5 * (1 + math.cos(math.pi * done))
    return settings.step_size * 0.1 ** sum(done >= milestone for milestone in (3 / 8, 5 / 8, 7 / 8))
