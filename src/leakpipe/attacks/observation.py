"""What an attacker has. True images cannot be among it: an observation has no place for them."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from leakpipe.federation.local import ClientUpdate, LocalSettings
from leakpipe.models.batchnorm import BatchStatistics
from leakpipe.models.state import ModelState, batch_norm_layers, mean_name, variance_name


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One client's update and what the threat model grants besides.

    Attributes:
        before: The global model that the client was sent.
        update: What it shared (after its defences).
        labels: Shape (images,): known labels, class indices, by position in `schedule`.
        schedule: Positions of the images in each local step (`schedule_batches`): the attacker knows how
            many images, epochs and steps there were and what the batch size was. Which of its candidates
            goes into which batch is a matter of naming them.
        settings: How the client trained.
        prior: The attacker's guesses before the update, shape (images, channels, height, width) in [0, 1].
    """

    before: ModelState
    update: ClientUpdate
    labels: Tensor
    schedule: Sequence[Sequence[int]]
    settings: LocalSettings
    prior: Tensor


def recover_batch_statistics(before: ModelState, update: ClientUpdate, momentum: float) -> dict[str, BatchStatistics]:
    """Batch statistics that the running statistics give away, by layer name.

    One local step: batch = (running_{t+1} − (1 − m)·running_t) / m = running_t + Δ/m. With k steps the
    running value is an exponentially weighted sum of k batch statistics; what is recovered is then
    their weighted mean, running_t + Δ/(1 − (1 − m)^k). Differentiable in the update, so that the same
    quantity can be computed of a candidate's update. A defence's noise can make a variance negative.
    """
    weight = 1 - (1 - momentum) ** update.steps
    recovered = {name: running + update.statistics[name] / weight for name, running in before.statistics.items()}
    return {
        layer: BatchStatistics(recovered[mean_name(layer)], recovered[variance_name(layer)])
        for layer in batch_norm_layers(before.module)
    }
