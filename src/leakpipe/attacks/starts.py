"""Where candidates start."""

import torch
from torch import Tensor

from leakpipe.attacks.observation import Observation
from leakpipe.params.attacks import AttackSettings

NOISE_MEAN, NOISE_DEVIATION = 0.45, 0.225  # of ImageNet pixels
TILE = 4  # pixels


def start_candidates(observation: Observation, settings: AttackSettings, generator: torch.Generator) -> Tensor:
    """Starts of every restart, each drawn anew.

    `prior` is the prior image, where there are several candidates with noise of `start_jitter` that tells them
    apart (equal candidates of one class would stay equal); `noise` is Gaussian with the mean and deviation of
    ImageNet pixels (Geiping 2020 starts from standard noise on normalised pixels); `pattern` repeats one such
    4×4-pixel tile over the image (Geiping's later recipe).

    Returns:
        Shape (restarts, candidates, channels, height, width) in [0, 1].
    """
    channels, height, width = observation.image_shape
    shape = (settings.restarts, observation.candidates, channels, height, width)
    if settings.start == "pattern":
        tiles = torch.randn(*shape[:3], TILE, TILE, generator=generator)
        noise = tiles.repeat(1, 1, 1, -(-height // TILE), -(-width // TILE))[..., :height, :width]
    else:
        noise = torch.randn(shape, generator=generator)
    if settings.start != "prior":
        return (NOISE_MEAN + NOISE_DEVIATION * noise).clamp(0, 1)
    prior = observation.candidate_prior
    assert prior is not None  # `usable_settings` has seen to it
    several = observation.candidates > 1 or settings.restarts > 1
    return (prior + (settings.start_jitter if several else 0.0) * noise).clamp(0, 1)
