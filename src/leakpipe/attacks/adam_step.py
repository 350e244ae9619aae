"""The test whether one step of Adam had the believed step size and weight decay.

The first step of Adam moves a weight w by −η·g/(|g| + ε′), so by ±η wherever its gradient g is not tiny, and AdamW by
−η·λ·w more (Loshchilov and Hutter 2019, algorithm 2): the size of the moves gives η away, and their part along w gives
λ, whatever the images were.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from leakpipe.attacks.observation import Observation
from leakpipe.client.optimizers import is_adaptive
from leakpipe.params.training import AdamWParams

EXACT = 1.1  # factor between step sizes
SMALL = 10.0  # step sizes; a larger weight that was stored in bfloat16 may be off by a step
LARGEST = 0.99  # quantile of the moves: gradients may be tiny, but not all of them
LEAST_VALUES = 20
NEAR_RATE = 0.2  # of the step size: farther moves have tiny gradients
LEAST_DECAY = 1e-3  # difference of weight decays
CLEAR = 0.5  # least share of the gaps between moves that decay explains: tiny gradients make the rest


@dataclass(frozen=True)
class AdamStep:
    """The step size and the decoupled weight decay that one step of Adam shows.

    Attributes:
        rate: η.
        decay: λ.
        clear: Share of the median gap between the sizes of moves that λ explains beyond the believed one.
    """

    rate: float
    decay: float
    clear: float


def doubt_adam_step(observation: Observation) -> list[str]:
    """Returns what one step of Adam says against the believed one; nothing of several steps and other optimisers."""
    settings = observation.settings
    optimizer = settings.training.optimizer
    if not is_adaptive(optimizer) or observation.update.steps != 1:
        return []
    believed = optimizer.weight_decay if isinstance(optimizer, AdamWParams) else 0.0
    read = read_adam_step(observation, believed)
    if read is None:
        return []
    rate = settings.learning_rate
    if not 1 / EXACT < read.rate / rate < EXACT:
        return [
            f"Weights moved by {read.rate:.3g}, as by Adam's first step with that learning_rate and not the believed "
            f"{rate:g}."
        ]
    if read.clear < CLEAR or abs(read.decay - believed) <= max(LEAST_DECAY, (EXACT - 1) * believed):
        return []
    return [
        f"Weights also decayed by {read.decay:.2g} times the learning rate, as by AdamW with that weight_decay, and "
        f"not by the believed {optimizer.kind} with {believed:g}: check training.optimizer."
    ]


def read_adam_step(observation: Observation, believed: float) -> AdamStep | None:
    """Reads the step size and the weight decay off one step; None where hardly a weight is small.

    Args:
        believed: Decoupled weight decay.
    """
    before, changes = observation.before.weights, observation.update.weights
    weights = torch.cat([before[name].double().flatten() for name in changes])
    moved = torch.cat([change.double().flatten() for change in changes.values()])
    small = moved[(weights.abs() < SMALL * observation.settings.learning_rate) & (moved != 0)].abs()
    if len(small) < LEAST_VALUES:
        return None
    rate = float(small.sort().values[int(LARGEST * (len(small) - 1))])
    near = (moved.abs() - rate).abs() < NEAR_RATE * rate
    along = -rate * weights[near] * moved[near].sign()
    over = moved[near].abs()
    over = over - over.median() - believed * along
    decay = _least_absolute_slope(along, over)
    scatter, left = float(over.abs().median()), float((over - decay * along).abs().median())
    return AdamStep(rate, believed + decay, 1 - left / scatter if scatter else 0.0)


def _least_absolute_slope(along: Tensor, over: Tensor) -> float:
    """Returns the slope s that minimises Σ|over − s·along|: a weighted median, which few large values do not move."""
    used = along != 0
    slopes, order = (over[used] / along[used]).sort()
    shares = along[used].abs()[order].cumsum(dim=0)
    return float(slopes[int((shares < shares[-1] / 2).sum())]) if len(slopes) else 0.0
