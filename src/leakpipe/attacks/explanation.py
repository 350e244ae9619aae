"""The share of an update that images explain: one measure for every attack, whatever it minimised."""

import torch
from torch import Tensor

from leakpipe.attacks.objective import Objective
from leakpipe.attacks.observation import Observation
from leakpipe.errors import LeakpipeError
from leakpipe.params.attack_settings import AttackSettings

GRAY = 0.5
TERMS = ("update_distance", "batch_statistics")


def explained_share(observation: Observation, images: Tensor, labels: Tensor) -> float | None:
    """Returns the share of the start's distance to an update that images remove.

    The mean of 1 − D(images) / D(start) over two distances: 1 − the cosine of all weight differences, and the squared
    distance of batch statistics over their variances, where the update has them. The start is the prior image, plain
    gray where none is granted.

    Args:
        observation: One client's update.
        images: Shape (images, channels, height, width) in [0, 1].
        labels: Class indices, shape (images,).

    Returns:
        At most 1. Below 0 where the images explain the update worse than the start does. None where the update has
        nothing to explain, or is the mean of several clients' updates, which one client's images do not explain.
    """
    if observation.cohort:
        return None
    statistics = bool(observation.update.statistics)
    settings = AttackSettings(
        engine="autograd",
        batch_norm="update" if statistics else "none",
        batch_norm_weight=float(statistics),
        objective_weight=float(observation.has_signal),
    )
    try:
        objective = Objective(observation, settings, seed=0)
    except LeakpipeError:  # nothing is left to match
        return None
    prior = observation.candidate_prior
    start = torch.full_like(images, GRAY) if prior is None else prior
    before, after = (objective.evaluate(each, labels).terms for each in (start, images))
    shares = [1 - after[name] / before[name] for name in TERMS if before.get(name, 0) > 0]
    return sum(shares) / len(shares) if shares else None
