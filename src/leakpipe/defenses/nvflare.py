"""The privacy filters of NVFlare 2.9, with its defaults (nvflare.app_common.filters). None guarantees privacy here."""

import math
import re
from dataclasses import replace

import torch
from torch import Tensor

from leakpipe.client.update import ClientUpdate
from leakpipe.defenses.compression import keep_above_percentile
from leakpipe.defenses.noise import with_laplace_noise
from leakpipe.defenses.values import batch_counters, flatten_values, named_values, unflatten_values
from leakpipe.errors import LeakpipeError
from leakpipe.params.defenses import ExcludeVarsParams, PercentileParams, SvtParams

MOST_PASSES = 1000


def share_percentile(update: ClientUpdate, params: PercentileParams) -> ClientUpdate:
    """Shares values that reach a percentile of all magnitudes, clipped (PercentilePrivacy, after Shokri 2015).

    Magnitudes are per local step, and those of batch counters are 1. Counters are passed on as they are.
    """
    return keep_above_percentile(update, params.percentile, largest=params.gamma, count_batches=params.count_batches)


def share_by_sparse_vector(update: ClientUpdate, params: SvtParams, *, generator: torch.Generator) -> ClientUpdate:
    """Shares a random choice of n values, clipped to ±γ per local step, with Laplace noise; others are 0 (SVTPrivacy).

    A value's answer is its clipped magnitude with noise of scale 2γn/ε_query. Values whose answer reaches the threshold
    τ + Laplace(γ/ε_threshold) are accepted, and all others asked again until n are. n of the accepted are drawn, each
    gets noise of scale 2γn/ε_release. Batch counters are passed on as they are, but may be among those drawn.

    Raises:
        LeakpipeError: Too few values are ever accepted (NVFlare's filter would not return).
    """
    values = flatten_values(update) / update.steps
    counters = batch_counters(update) / update.steps if params.count_batches else values[:0]
    clipped = torch.cat([values, counters]).clamp(-params.gamma, params.gamma)
    sent = math.ceil(len(clipped) * params.fraction)
    for_threshold, for_query = split_budget(params, sent)

    def noisy(given: Tensor, budget: float) -> Tensor:
        return with_laplace_noise(given, params.gamma / budget, generator)

    threshold = noisy(clipped.new_tensor([params.tau]), for_threshold)
    accepted = torch.zeros_like(clipped, dtype=torch.bool)
    for _ in range(MOST_PASSES):
        accepted |= noisy(clipped.abs(), for_query / (2 * sent)) >= threshold
        if int(accepted.sum()) >= sent:
            break
    else:
        raise LeakpipeError(
            f"svt: {int(accepted.sum())} values reached the threshold in {MOST_PASSES} passes, expected {sent}; "
            "lower tau, epsilon or fraction"
        )
    candidates = accepted.nonzero().flatten()
    if params.replace:
        drawn = torch.randint(len(candidates), (sent,), generator=generator, device="cpu").unique()
    else:
        drawn = torch.randperm(len(candidates), generator=generator, device="cpu")[:sent]
    chosen = candidates[drawn]
    shared = torch.zeros_like(clipped)
    shared[chosen] = noisy(clipped[chosen], release_budget(params, sent) / (2 * sent))
    return unflatten_values(shared[: len(values)] * update.steps, update)


def split_budget(params: SvtParams, sent: int) -> tuple[float, float]:
    """Returns the parts of ε for the threshold and for the answers (Lyu, Su, Li 2017 for queries in any direction)."""
    if params.epsilon_threshold is not None:
        return params.epsilon_threshold, params.epsilon_query or params.epsilon - params.epsilon_threshold
    if params.epsilon_query is not None:
        return params.epsilon - params.epsilon_query, params.epsilon_query
    threshold = params.epsilon / (1 + (2 * sent) ** (2 / 3))
    return threshold, params.epsilon - threshold


def release_budget(params: SvtParams, sent: int) -> float:
    """Returns the budget that the values themselves are released with."""
    return sent * params.noise_var if params.epsilon_release is None else params.epsilon_release


def exclude_variables(update: ClientUpdate, params: ExcludeVarsParams) -> ClientUpdate:
    """Removes tensors by name (ExcludeVars 2.9): the server keeps its own, and attackers see that they are missing.

    Names of a list that no tensor has are passed over; an expression may match any part of a name.

    Raises:
        LeakpipeError: Nothing is left to share.
    """

    def excluded(name: str) -> bool:
        if isinstance(params.exclude, str):
            return bool(params.exclude) and re.search(params.exclude, name) is not None
        return name in params.exclude

    removed = {name for name, _ in named_values(update) if excluded(name)}
    weights, statistics = (
        {name: value for name, value in part.items() if name not in removed}
        for part in (update.weights, update.statistics)
    )
    if not weights:
        raise LeakpipeError(f"exclude-vars: {params.exclude!r} leaves no weight in the update")
    return replace(update, weights=weights, statistics=statistics, removed=update.removed | removed)
