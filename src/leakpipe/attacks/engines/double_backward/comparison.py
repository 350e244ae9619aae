"""Which attacks go through the passes, how many restarts at once, and their distance of updates."""

import math
from functools import cache, partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from leakpipe.attacks.batch_statistics import StatisticsByLayer
from leakpipe.attacks.distances import PRODUCT_DISTANCES, WITHOUT_DIFFERENCE
from leakpipe.attacks.engines.double_backward.explain import Explainer
from leakpipe.attacks.engines.double_backward.program import UnknownLayerError

if TYPE_CHECKING:
    from leakpipe.attacks.objective import Terms


MOST_TOGETHER = 16
WEIGHTS_TOGETHER, PIXELS_TOGETHER = 2**21, 2**14  # of all of them; more gain nothing and take memory


class Comparison:
    """The distance of updates of one client, without a simulated update.

    The update is −η times the sum of its steps' gradients, which is compared with T = −ΔW/η.

    Attributes:
        together: How many restarts are worth comparing at once.
    """

    def __init__(self, terms: "Terms") -> None:
        rate, objective = terms.belief.learning_rate, terms.settings.objective
        targets = {name: terms.told.weights[name] / -rate for name in terms.observed}
        differs = objective not in WITHOUT_DIFFERENCE
        schedule = terms.trainings[0][0]
        explain = partial(Explainer, terms.global_model, targets, terms.belief, schedule=schedule, differs=differs)
        self.explainer = cache(lambda restarts: explain(restarts=restarts))
        self.explainer(1)  # an unknown layer is said here
        weights = sum(value.numel() for value in terms.global_model.weights.values())
        pixels = terms.observation.candidates * math.prod(terms.observation.image_shape[1:])
        most = MOST_TOGETHER if len(schedule) == 1 else 1
        self.together = max(1, min(most, WEIGHTS_TOGETHER // weights, PIXELS_TOGETHER // pixels))
        self.distance = PRODUCT_DISTANCES[objective]
        self.scales = torch.tensor([terms.scales[name] * rate for name in targets], dtype=torch.float64).square()
        squared = [value.double().square().sum() for value in targets.values()]
        self.theirs = torch.stack(squared) * self.scales

    def compare(self, images: Tensor, labels: Tensor) -> tuple[Tensor, StatisticsByLayer]:
        """The distance of the candidates' update from the observed one, and the batch statistics on the way.

        Args:
            images: Shape (restarts, images, channels, height, width).
            labels: Of each restart.

        Returns:
            Distances of shape (restarts,), and by layer means and variances of shape (restarts, channels); none where
            batch normalisation is frozen.
        """
        found = self.explainer(len(images)).explain(images, labels)
        return self.distance(found.products.scaled(self.scales), self.theirs), found.statistics


def find_comparison(terms: "Terms") -> Comparison | None:
    """How updates are compared through the passes; None where autograd has to differentiate a simulated update.

    The passes are of one client's training, whose update is known as it is.
    """
    observation, settings, told = terms.observation, terms.settings, terms.told
    one_training = not observation.companions and len(terms.trainings) == 1
    all_steps = one_training and observation.update.steps == len(terms.trainings[0][0])
    exact = not (told.weight_bounds or told.statistic_bounds)
    as_client = (
        settings.update_gradient == "through-update"
        and settings.global_model == "restored"
        and settings.statistics_model == "global"
        and settings.variance == "unbiased"
    )
    if not (settings.engine == "double-backward" and all_steps and exact and as_client):
        return None
    try:
        return Comparison(terms)
    except UnknownLayerError:
        return None
