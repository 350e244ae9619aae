"""The update that plain SGD would have made: the optimiser's part taken out, as far as that is known.

For every optimiser but Adam the update is linear in the gradients g_k of its steps, up to clipping:

    ΔW = drift − Σ_k c_k g_k,    Σ_k c_k = gain

The drift is what weight decay does to weights whose gradients are 0. Of a single step, −(ΔW − drift)/gain is the
gradient itself; of several, it is a weighted mean of their gradients.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil

import torch
from torch import Tensor

from leakpipe.attacks.adaptive import Adapted
from leakpipe.client.local_update import LocalSettings, follow_gradients
from leakpipe.client.optimizers import is_adaptive
from leakpipe.models.state import Tensors
from leakpipe.params.training import AdamParams, ClippingParams, TrainingParams

ROUNDING = 1e-4  # relative, of a norm of float32 gradients


@dataclass(frozen=True)
class Reading:
    """The reading of the assumed training's update.

    Attributes:
        drift: By parameter name; empty where it is zero, or unknown.
        gain: Of a constant gradient; None where the update is not linear in it.
        clipping: Of the gradients' norm, which leaves their length unknown where it reaches the limit.
        single: Whether there was one step of the optimiser on one batch.
    """

    drift: Tensors
    gain: float | None
    clipping: ClippingParams | None
    single: bool

    def drifted(self, name: str, change: Tensor) -> Tensor:
        """Returns a tensor of the update without the drift."""
        return change - self.drift[name] if name in self.drift else change

    def gradient(self, name: str, change: Tensor) -> Tensor:
        """Returns the mean gradient of a tensor, float64; up to a factor where it was clipped.

        Raises `ValueError` where the update is not linear in it.
        """
        if self.gain is None:
            raise ValueError("this optimiser's update is not linear in the gradient")
        return -self.drifted(name, change).double() / self.gain

    def knows_length(self, changes: Tensors) -> bool:
        """Returns whether the gradients' length is in an update: no clipping reached its limit."""
        if self.clipping is None:
            return True
        if not self.single:
            return False
        squares = [self.gradient(name, change).square().sum() for name, change in changes.items()]
        return bool(torch.stack(squares).sum().sqrt() < self.clipping.limit * (1 - ROUNDING))


def read_training(weights: Tensors, settings: LocalSettings, batches: int) -> Reading:
    """Returns how the update of `batches` batches from `weights` is read."""
    training = settings.training
    steps = ceil(batches / training.accumulation)
    optimizer, clipping = training.optimizer, training.clipping
    decays = optimizer.weight_decay > 0 and not isinstance(optimizer, AdamParams)  # whose decay is scaled like g
    drift = follow_gradients(weights, [_filled(weights, 0.0)] * steps, settings) if decays else {}
    by_value = clipping is not None and clipping.kind == "value"
    gain = None
    if not (is_adaptive(optimizer) or by_value):
        linear = training.model_copy(
            update={
                "optimizer": optimizer.model_copy(update={"weight_decay": 0.0}),
                "clipping": None,
                "proximal_weight": 0.0,
            }
        )
        one = {"": torch.zeros((), dtype=torch.float64, device="cpu")}
        whole, left = divmod(batches, training.accumulation)
        shares = [1.0] * whole + ([left / training.accumulation] if left else [])
        given = [{"": torch.full((), share, dtype=torch.float64, device="cpu")} for share in shares]
        gain = -float(follow_gradients(one, given, replace(settings, training=linear))[""])
    return Reading(drift, gain, clipping if gain is not None else None, batches == 1)


def as_plain_sgd(adapted: Adapted, reading: Reading, learning_rate: float) -> Adapted:
    """Returns an update as plain SGD with this learning rate would have made it, from the same gradient."""
    assert reading.gain is not None
    factor = learning_rate / reading.gain

    def plain(name: str, change: Tensor) -> Tensor:
        return reading.drifted(name, change) * factor

    bounds: Mapping[str, tuple[Tensor, Tensor]] = {
        name: (plain(name, lower), plain(name, upper)) for name, (lower, upper) in adapted.weight_bounds.items()
    }
    weights = {name: plain(name, change) for name, change in adapted.weights.items()}
    return replace(adapted, weights=weights, weight_bounds=bounds)


def what_loses_length(training: TrainingParams) -> str:
    """Names what leaves no more than the direction, or the signs, of a gradient."""
    return training.optimizer.kind if training.optimizer.kind != "sgd" else "gradient clipping"


def plain_of(training: TrainingParams) -> TrainingParams:
    """Returns plain SGD on the same loss in the same precision."""
    return TrainingParams(loss=training.loss, precision=training.precision, loss_scale=training.loss_scale)


def is_plain(training: TrainingParams) -> bool:
    """Returns whether a training is plain SGD in float32, on whatever loss."""
    return training == TrainingParams(loss=training.loss)


def _filled(tensors: Tensors, value: float) -> Tensors:
    return {name: torch.full_like(tensor, value) for name, tensor in tensors.items()}
