"""How much of an update images explain: one measure for every attack, whatever it minimised."""

import torch
from torch import Tensor

from leakpipe.attacks.objective import Objective
from leakpipe.attacks.observation import Observation
from leakpipe.params.attacks import AttackSettings

GRAY = 0.5
MEASURE = AttackSettings(engine="autograd", batch_norm="none")  # the cosine of the update in training mode, and no more


def explained_share(observation: Observation, images: Tensor, labels: Tensor) -> float | None:
    """Returns 1 − D(ΔŴ(images)) / D(ΔŴ(start)), the share of the start's distance to the update that images remove.

    D is 1 − the cosine of all weight differences; the start is the prior image, plain gray where none is granted.

    Args:
        observation: One client's update.
        images: Shape (images, channels, height, width) in [0, 1].
        labels: Class indices, shape (images,).

    Returns:
        At most 1. Below 0 where the images explain the update worse than the start does. None where the update has no
        weight differences, or where the start explains it fully.
    """
    if not observation.has_signal:
        return None
    objective = Objective(observation, MEASURE, seed=0)
    prior = observation.candidate_prior
    start = torch.full_like(images, GRAY) if prior is None else prior
    before, after = (objective.evaluate(each, labels).terms["update_distance"] for each in (start, images))
    return 1 - after / before if before > 0 else None
