"""A rehearsal before an attack: whether the network can be simulated at all, and the belief about it be true."""

from collections.abc import Iterable

import torch
from torch import Tensor

from leakpipe.attacks.belief import examine_belief
from leakpipe.attacks.observation import Observation
from leakpipe.attacks.plausible import plausible_images
from leakpipe.client.batches import Batch
from leakpipe.client.local_update import LocalSettings, local_update
from leakpipe.errors import LeakpipeError
from leakpipe.models.any_module import active_dropout
from leakpipe.models.batchnorm import batch_norm_layers
from leakpipe.models.state import ModelState, forward_frozen, forward_training


def rehearse(observation: Observation) -> list[str]:
    """Trains the model on plausible images as the attack will, and compares the belief with the update.

    Returns:
        What the observation was converted from, weights without a gradient, doubts about the belief, and what
        of it was not checked, in sentences.

    Raises:
        LeakpipeError: The network draws at random, fails, gives no logits, or changes with each pass.
    """
    _check_dropout(observation.before)
    images = plausible_images(observation, torch.Generator().manual_seed(0))
    dtype = next(iter(observation.before.weights.values())).dtype
    images = images[list(observation.client.assumed_schedule[0])].to(dtype)
    labels = _check_passes(observation, images)
    examined = examine_belief(observation)
    return [
        *observation.notes,
        *_note_momentum(observation),
        *_note_unused(observation, images, labels),
        *examined.doubts,
        *examined.unchecked,
    ]


def _check_dropout(state: ModelState) -> None:
    found = active_dropout(state.module)
    if found:
        others = f", and {len(found) - 1} more" if len(found) > 1 else ""
        raise LeakpipeError(
            f"model: {found[0]}{others} drops values at random, expected a network without dropout; build it without, "
            "or state that the client trained without: ModelState.of(network, dropout=False)"
        )


def _check_passes(observation: Observation, images: Tensor) -> Tensor:
    """Makes two passes, which must agree and leave every tensor alone; returns labels to train on."""
    state, settings = observation.before, observation.settings
    before = _versions(state)
    first, second = (_logits(state, images, settings) for _ in range(2))
    if _versions(state) != before or not torch.allclose(first, second, rtol=0, atol=0, equal_nan=True):
        raise LeakpipeError(
            "model: two passes of the same images differ or change a tensor, expected a network that neither draws at "
            "random nor remembers; switch off what does"
        )
    classes, labels = first.shape[1], observation.client.labels
    if labels is None:
        return torch.zeros(len(images), dtype=torch.int64, device=images.device)
    if observation.client.multi_label and labels.shape[1] != classes:
        raise LeakpipeError(f"labels: for {labels.shape[1]} classes, expected {classes}, the model's classes")
    if int(labels.max()) >= classes:
        raise LeakpipeError(f"labels: {labels.tolist()}, expected class indices below {classes}, the model's classes")
    return labels[list(observation.client.assumed_schedule[0])]


def _logits(state: ModelState, images: Tensor, settings: LocalSettings) -> Tensor:
    try:
        with torch.no_grad():
            if settings.batch_norm == "frozen":
                found = forward_frozen(state, images)
            else:
                found = forward_training(state, images, differentiable=False)[0]
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise LeakpipeError(
            f"model: a pass of images of shape {tuple(images.shape)} fails ({reason}), expected logits; check "
            "image_shape and the network"
        ) from error
    if not isinstance(found, Tensor) or found.dim() != 2 or len(found) != len(images):
        what = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise LeakpipeError(
            f"model: returns {what}, expected logits of shape ({len(images)}, classes); wrap it in a module that "
            "returns them"
        )
    return found


def _versions(state: ModelState) -> list[int]:
    """Counts how often each tensor of the model was written in place."""
    own: Iterable[Tensor] = (*state.module.parameters(), *state.module.buffers())
    return [tensor._version for tensor in (*state.weights.values(), *state.statistics.values(), *own)]


def _note_momentum(observation: Observation) -> list[str]:
    """A user's own network says the momentum of its layers itself; registered ones leave it to the settings."""
    module, believed = observation.before.module, observation.settings.batch_norm_momentum
    if not observation.update.statistics or any(value.is_meta for value in module.parameters()):
        return []
    counted = {getattr(layer, "momentum", None) for layer in batch_norm_layers(module).values()}
    others = sorted(value for value in counted if value is not None and abs(value - believed) > 1e-9)
    if not others:
        return []
    return [
        f"The network's batch normalisation has momentum {', '.join(f'{value:g}' for value in others)}, the believed "
        f"training {believed:g}: check batch_norm_momentum."
    ]


def _note_unused(observation: Observation, images: Tensor, labels: Tensor) -> list[str]:
    state = observation.before
    loss = LocalSettings(learning_rate=1.0, batch_norm=observation.settings.batch_norm)
    update = local_update(state, [Batch(images, labels)], loss).weights
    still = [name for name, value in update.items() if not bool(value.any())]
    if not still:
        return []
    named = ", ".join(still[:3]) + (", …" if len(still) > 3 else "")
    moved = [name for name in still if name in observation.update.weights and observation.update.weights[name].any()]
    said = f"; {len(moved)} of them moved in the update all the same: check the network" if moved else ""
    return [f"{len(still)} of {len(update)} weights get no gradient on plausible images ({named}){said}."]
