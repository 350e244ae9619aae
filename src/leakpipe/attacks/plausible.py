"""Plausible images, and the believed training on them: what an update could have looked like."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from leakpipe.attacks.observation import KnownClient, Observation
from leakpipe.client.batches import make_batches
from leakpipe.client.local_update import local_update
from leakpipe.models.state import Tensors, forward_frozen

DRAWS = 6
LINEAR = {2: "bilinear", 3: "trilinear"}  # interpolation of images and of volumes


def simulate_plausible(observation: Observation) -> list[Tensors]:
    """Returns the weight differences of the believed training on plausible images: the prior's, then draws'."""
    client, generator = observation.client, torch.Generator().manual_seed(0)
    dtype = next(iter(observation.before.weights.values())).dtype
    settings = replace(observation.settings, dp_sgd=None)
    with torch.no_grad():
        classes = forward_frozen(observation.before, plausible_images(observation, generator).to(dtype)).shape[1]
    found: list[Tensors] = []
    for draw in range(DRAWS):
        labels = client.labels
        if labels is None:
            drawn = _draw_labels(client, classes, generator)
            labels = drawn.to(observation.before.device)
        images = plausible_images(observation, generator).to(dtype)
        if draw == 0 and client.prior is not None:
            images = client.prior
        batches = make_batches(images, labels, client.assumed_schedule)
        found.append(local_update(observation.before, batches, settings).weights)
    return found


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
