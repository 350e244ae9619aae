"""The form of every compared attack: from an observation and a number of steps to images, watched on its way."""

import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from leakpipe.attacks.observation import Observation
from leakpipe.attacks.recovered_statistics import recover_batch_statistics, weight_of_batches
from leakpipe.models.batchnorm import BATCH_NORMS

SNAPSHOTS = 60


class BudgetSpentError(Exception):
    """As many steps were taken as were to be timed."""


@dataclass
class Trace:
    """Candidates that a search passes through, with the seconds of processor time until then.

    Args:
        steps: Of the search.
        last: Step after which the search is left (`BudgetSpentError`); None for none.
    """

    steps: int
    last: int | None = None
    times: list[float] = field(default_factory=list)
    images: list[Tensor] = field(default_factory=list)
    taken: int = 0
    _began: float = 0.0
    _paused: float = 0.0

    def visit(self, images: Tensor) -> None:
        """Notes the candidates, shape (images, 1, height, width), before the next step."""
        now = time.process_time()
        if not self.taken:
            self._began = now
        if self.last is not None or self.taken % max(1, self.steps // SNAPSHOTS) == 0:
            self.times.append(now - self._began - self._paused)
            self.images.append(images.detach().clone().clamp(0, 1))
        self.taken += 1
        if self.last is not None and self.taken > self.last:
            raise BudgetSpentError
        self._paused += time.process_time() - now


Attack = Callable[[Observation, int, Trace], Tensor]  # steps to take; the images that the attack itself keeps


def global_module(observation: Observation) -> nn.Module:
    """A copy of the network with the global model's tensors, in training mode."""
    module = deepcopy(observation.before.module).to_empty(device="cpu")
    module.load_state_dict({**observation.before.weights, **observation.before.statistics}, strict=False)
    return module.train()


def biased_statistics(observation: Observation) -> Sequence[tuple[Tensor, Tensor]]:
    """Mean and biased variance, as torch normalises with, of each batch-normalisation layer as the update says."""
    momentum, client = observation.settings.batch_norm_momentum, observation.client
    assert momentum is not None
    weight = weight_of_batches(momentum, [observation.update.steps])
    recovered = recover_batch_statistics(observation.before, observation.update, weight)
    counts: dict[str, int] = {}
    module = global_module(observation)
    for name, layer in module.named_modules():
        if isinstance(layer, BATCH_NORMS):
            layer.register_forward_hook(
                lambda _, inputs, __, name=name: counts.__setitem__(name, inputs[0].numel() // inputs[0].shape[1])
            )
    with torch.no_grad():
        module(torch.rand(min(client.batch_size, client.images), *observation.image_shape))
    return [(of.mean, of.variance * (counts[name] - 1) / counts[name]) for name, of in recovered.items()]
