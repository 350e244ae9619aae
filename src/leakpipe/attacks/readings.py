"""Readings of an aggregate: as the mean of all its clients' updates, or as the attacked client's own.

Candidates of all clients explain an aggregate better than one client's do, if only because they are more: what tells
is how well each reading would predict values that it was not fitted to. Generalised cross-validation (Golub, Heath,
Wahba 1979) estimates that error from the residual alone, where p unknowns were fitted to n values:

    V = residual / (1 − p/n)²

From p = n on a reading can explain anything, so it says nothing, and is not searched.
"""

import math
from dataclasses import replace

from torch import Tensor

from leakpipe.attacks.objective import Objective
from leakpipe.attacks.observation import Observation
from leakpipe.params.attack_settings import AttackSettings


def alone(observation: Observation) -> Observation:
    """The aggregate as an attacker reads it who takes it for the update of the attacked client."""
    return replace(observation, cohort=(), defense=None)


def inflation(observation: Observation) -> float:
    """1 / (1 − p/n)²: p pixels of all candidates, n weight differences of the update; infinite from p = n on."""
    unknowns = observation.candidates * math.prod(observation.image_shape)
    values = sum(value.numel() for value in observation.update.weights.values())
    return 1 / (1 - unknowns / values) ** 2 if unknowns < values else math.inf


def prediction_error(observation: Observation, settings: AttackSettings, images: Tensor, labels: Tensor) -> float:
    """Generalised cross-validation of candidates that a search has found.

    The residual is 1 − the cosine of all weight differences as they were sent, whatever the attack minimised.

    Args:
        images: Of all candidates, shape (candidates, channels, height, width).
        labels: Class indices, shape (candidates,).
    """
    plain = {"objective": "cosine", "objective_weight": 1.0, "layer_weighting": 0.0, "engine": "autograd"}
    objective = Objective(observation, settings.model_copy(update=plain), seed=0)
    return inflation(observation) * objective.evaluate(images, labels).terms["update_distance"]
