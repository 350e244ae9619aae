"""Plausible images, and the believed training on them: what an update could have looked like."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from leakpipe.attacks.observation import KnownClient, Observation
from leakpipe.client.batches import Batch, make_batches
from leakpipe.client.local_update import local_update
from leakpipe.client.update import ClientUpdate
from leakpipe.models.state import forward_frozen, forward_training

DRAWS = 6
TINIEST = 1e-12
LINEAR = {2: "bilinear", 3: "trilinear"}  # interpolation of images and of volumes


@dataclass(frozen=True)
class Plausible:
    """The believed training on plausible images, a draw each: of the prior first.

    Attributes:
        updates: What the client would send.
        first_steps: The same of the first batch alone.
        images: The last draw's first batch.
        error: Mean distance of predictions from the labels drawn, geometric mean over draws: how large gradients were
            beside the largest there are, where it is 1.
        least_error: Of the draw with the surest predictions, were they right, over that of guessing.
    """

    updates: Sequence[ClientUpdate]
    first_steps: Sequence[ClientUpdate]
    images: Tensor
    error: float
    least_error: float


def simulate_plausible(observation: Observation) -> Plausible:
    """Trains on plausible images as the client is believed to have trained."""
    client, generator = observation.client, torch.Generator().manual_seed(0)
    dtype = next(iter(observation.before.weights.values())).dtype
    settings = replace(observation.settings, dp_sgd=None)
    with torch.no_grad():
        classes = forward_frozen(observation.before, plausible_images(observation, generator).to(dtype)).shape[1]
    found, first, errors, least = [], [], [], []
    for draw in range(DRAWS):
        labels = client.labels
        if labels is None:
            drawn = _draw_labels(client, classes, generator)
            labels = drawn.to(observation.before.device)
        images = plausible_images(observation, generator).to(dtype)
        if draw == 0 and client.prior is not None:
            images = client.prior
        batches = make_batches(images, labels, client.assumed_schedule)
        found.append(local_update(observation.before, batches, settings))
        first.append(local_update(observation.before, batches[:1], settings) if len(batches) > 1 else found[-1])
        error, of_surest = _errors(observation, batches[0])
        errors.append(error)
        least.append(of_surest)
    error = math.exp(sum(map(math.log, errors)) / DRAWS)
    return Plausible(found, first, batches[0].images, error, min(least))


def _errors(observation: Observation, batch: Batch) -> tuple[float, float]:
    """Measures the error of the model's predictions, and the least that it could be, over that of guessing."""
    state, settings = observation.before, observation.settings
    with torch.no_grad():
        if settings.batch_norm == "frozen":
            logits = forward_frozen(state, batch.images)
        else:
            logits = forward_training(state, batch.images, differentiable=False)[0]
        if settings.training.loss.kind == "cross-entropy":
            predicted = logits.double().softmax(dim=1)
            least = (1 - predicted.max(dim=1).values).mean() / (1 - 1 / logits.shape[1])
        else:
            predicted = logits.double().sigmoid()
            least = 2 * torch.minimum(predicted, 1 - predicted).mean()
        labels = batch.labels
        if not labels.is_floating_point():
            labels = nn.functional.one_hot(labels, logits.shape[1])
        error = (predicted - labels).abs().amax(dim=1).mean()
    return max(float(error), TINIEST), float(least)


def _draw_labels(client: KnownClient, classes: int, generator: torch.Generator) -> Tensor:
    if client.multi_label:
        return torch.randint(2, (client.images, classes), generator=generator, device="cpu").float()
    return torch.randint(classes, (client.images,), generator=generator, device="cpu")


def plausible_images(observation: Observation, generator: torch.Generator) -> Tensor:
    """Draws smooth noise around the prior, or around gray: shape (images, *image_shape) in [0, 1]."""
    client, (channels, *size) = observation.client, observation.image_shape
    coarse_shape = (client.images, channels, *(max(2, side // 8) for side in size))
    coarse = torch.rand(coarse_shape, generator=generator, device="cpu")
    smooth = nn.functional.interpolate(coarse, tuple(size), mode=LINEAR[len(size)], align_corners=False)
    fine = 0.1 * torch.randn(client.images, channels, *size, generator=generator, device="cpu")
    around = smooth if client.prior is None else (client.prior.float().cpu() + smooth) / 2
    return (around + fine).clamp(0, 1).to(observation.before.device)
