"""The move of an update's head beside what the believed training would have made of it.

`leakpipe.attacks.belief` says what that tells.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from leakpipe.attacks.observation import Observation
from leakpipe.attacks.plain_update import read_training
from leakpipe.client.batches import make_batches
from leakpipe.client.local_update import LocalSettings, local_update
from leakpipe.errors import LeakpipeError
from leakpipe.models.layers import head_layer
from leakpipe.models.state import ModelState, Tensors

ALIKE = 0.3  # least cosine between draws
READABLE = 10.0  # roundings that a head must have moved, for its features to be read


@dataclass(frozen=True)
class HeadFactor:
    """The comparison of an update's head with that of the believed training.

    Attributes:
        factor: Observed over predicted change of the bias; below 0 where the sign is another.
        agreement: Cosine between them.
    """

    factor: float
    agreement: float


def drawn_head_factor(observation: Observation, simulated: Sequence[Tensors]) -> tuple[HeadFactor | None, float]:
    """Compares the head with that of the believed training on plausible images.

    Returns:
        The comparison, and by what factor the draws differ among themselves; None without a head with a bias, without
        labels, or where the draws point in different directions.
    """
    kinds = _head_parameters(observation)
    if not kinds or observation.client.labels is None:
        return None, 1.0
    observed, *drawn = (
        torch.cat([update[kind].double().flatten() for kind in kinds])
        for update in (observation.update.weights, *simulated)
    )
    norms = torch.stack([each.norm() for each in drawn])
    if not bool(norms.all()) or not bool(observed.any()):
        return None, 1.0
    directions = torch.stack(drawn) / norms[:, None]
    if float((directions @ directions.T).min()) < ALIKE:
        return None, 1.0
    agreement = directions @ observed / observed.norm()
    factor = float(observed.norm() / norms.log().mean().exp())
    toward = float(agreement.max()) if float(agreement.max()) < 0 else float(agreement.mean())
    return HeadFactor(factor if toward > 0 else -factor, toward), float(norms.max() / norms.min())


def head_factor(observation: Observation) -> HeadFactor | None:
    """Compares the head's bias, of one image, with that of the believed training; None without a head with a bias."""
    kinds = _head_parameters(observation)
    if not kinds:
        return None
    changes, client = observation.update.weights, observation.client
    before = {kind: observation.before.weights[kind].double() for kind in kinds}
    decay = read_training(before, observation.settings, observation.update.steps)
    weight, bias = (decay.drifted(kind, changes[kind].double()) for kind in kinds)
    labels = client.labels
    if labels is None:
        # Its own class moves as far as all others together; of two classes, the other one has the other sign.
        labels = (bias if len(bias) == 2 else bias.abs()).argmax()[None]
        if client.multi_label:  # every label that an image has pulls its own logit up
            labels = (bias > 0).double()[None]
    spacing = torch.finfo(torch.float32).eps * float(
        (before[kinds[1]].abs() + observation.settings.learning_rate).max()
    )
    if not float(bias.norm()) > READABLE * spacing:
        return None
    features = (bias @ weight / bias.square().sum()).expand(client.images, -1)
    linear = nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
    state = ModelState(linear, dict(zip(("weight", "bias"), before.values(), strict=True)), {})
    settings = _alone(observation.settings)
    predicted = local_update(state, make_batches(features, labels, client.assumed_schedule), settings).weights["bias"]
    norm = float(predicted.norm())
    if norm == 0:
        return None
    inner = float(predicted @ bias)
    return HeadFactor(inner / norm**2, inner / (norm * float(bias.norm())))


def _alone(settings: LocalSettings) -> LocalSettings:
    """The training of a head alone: without what depends on all other tensors, makes noise, or is taken off."""
    optimizer = settings.training.optimizer.model_copy(update={"weight_decay": 0.0})
    changed = {"clipping": None, "precision": "float32", "loss_scale": 1.0, "optimizer": optimizer}
    return replace(settings, training=settings.training.model_copy(update=changed), dp_sgd=None)


def _head_parameters(observation: Observation) -> tuple[str, ...]:
    """Names of the head's weight and bias, where the update has both."""
    try:
        name = head_layer(observation.before)
    except LeakpipeError:
        return ()
    kinds = (f"{name}.weight", f"{name}.bias")
    return kinds if all(kind in observation.update.weights for kind in kinds) else ()
