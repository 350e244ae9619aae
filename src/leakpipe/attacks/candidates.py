"""Candidates: where they start, and the free values that a search moves in their place."""

import math

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from leakpipe.attacks.observation import Observation
from leakpipe.attacks.plausible import LINEAR
from leakpipe.attacks.spectrum import from_coefficients, to_coefficients
from leakpipe.params.attack_settings import AttackSettings

NOISE_MEAN, NOISE_DEVIATION = 0.45, 0.225  # of ImageNet pixels
TILE = 4  # pixels
INSIDE = 1e-3  # a sigmoid reaches 0 and 1 at infinity: starts keep this distance


class Variables:
    """The writing of images (and labels, where they are searched too) as one row of free values per restart.

    A row holds the images at the height of the pyramid's level, as pixels, as values under a sigmoid, as weighted
    cosine coefficients or as both, and then the logits of the labels.

    Args:
        settings: Its `pyramid`, `bounds` and `spectrum_decay` say how.
        shape: Of all images: (images, channels, height, width), or with depth before height.
        label_classes: Classes to search labels over; 0 where labels are not searched.
    """

    def __init__(self, settings: AttackSettings, shape: tuple[int, ...], *, label_classes: int) -> None:
        self.settings, self.shape, self.label_classes = settings, shape, label_classes
        self.sides = shape[2:]
        self.heights = settings.pyramid or (self.sides[0],)
        self.logits = shape[0] * label_classes
        pixels = {height: math.prod(shape[:2]) * math.prod(self._scaled(height)) for height in self.heights}
        self.lengths = {number + self.logits: height for height, number in pixels.items()}  # of a row at each height

    def from_images(self, images: Tensor, logits: Tensor | None, *, level: int) -> Tensor:
        """Free values of a level.

        Args:
            images: Shape (restarts, images, channels, height, width) in [0, 1], of any height.
            logits: Shape (restarts, images · classes) where labels are searched.

        Returns:
            Shape (restarts, variables).
        """
        free = self._free(self._resize(images, self.heights[level]))
        return free if logits is None else torch.cat([free, logits], dim=1)

    def candidates(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Images at full size, shape (restarts, images, channels, height, width), and label shares of each restart."""
        free, logits = self._split(rows)
        images = self._resize(self._images(free), self.sides[0])
        return images, self.label_shares(logits) if self.label_classes else None

    def label_shares(self, logits: Tensor) -> Tensor:
        """Share of each class, shape (restarts, images, classes), of logits of shape (restarts, images · classes)."""
        return torch.softmax(logits.view(len(logits), -1, self.label_classes), dim=2)

    def clamped(self, rows: Tensor) -> Tensor:
        """The free values whose images are clamped to [0, 1] (where `bounds` is `clamp`)."""
        if self.settings.bounds != "clamp":
            return rows
        free, logits = self._split(rows)
        return torch.cat([self._free(self._images(free).clamp(0, 1)), logits], dim=1)

    def enlarged(self, rows: Tensor, *, level: int) -> Tensor:
        """The free values of another level whose images look the same."""
        free, logits = self._split(rows)
        return self.from_images(self._images(free), logits, level=level)

    def _free(self, images: Tensor) -> Tensor:
        if self.settings.bounds == "sigmoid":
            images = images.clamp(INSIDE, 1 - INSIDE).logit()
        if self.settings.spectrum_decay > 0:
            images = to_coefficients(images, self.settings.spectrum_decay, axes=len(self.sides))
        return images.flatten(1)

    def _images(self, free: Tensor) -> Tensor:
        if self.settings.spectrum_decay > 0:
            free = from_coefficients(free, self.settings.spectrum_decay, axes=len(self.sides))
        return free.sigmoid() if self.settings.bounds == "sigmoid" else free

    def _split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Images, at the height that fits the number of variables, and logits."""
        height, size = self.lengths[rows.shape[1]], rows.shape[1] - self.logits
        return rows[:, :size].view(-1, *self.shape[:2], *self._scaled(height)), rows[:, size:]

    def _scaled(self, first: int) -> tuple[int, ...]:
        """The sides of images whose first one is that long."""
        full = self.sides[0]
        return self.sides if first == full else tuple(max(1, round(first * side / full)) for side in self.sides)

    def _resize(self, images: Tensor, height: int) -> Tensor:
        if images.shape[3] == height:
            return images
        smaller, axes = height < images.shape[3], len(self.sides)
        antialias = smaller and axes == 2  # which torch has for images only
        resized = interpolate(images.flatten(0, 1), self._scaled(height), mode=LINEAR[axes], antialias=antialias)
        return resized.view(*images.shape[:2], *resized.shape[1:])


def start_candidates(observation: Observation, settings: AttackSettings, generator: torch.Generator) -> Tensor:
    """Starts of every restart, each drawn anew.

    `prior` is the prior image, where there are several candidates with noise of `start_jitter` that tells them
    apart (equal candidates of one class would stay equal); `noise` is Gaussian with the mean and deviation of
    ImageNet pixels (Geiping 2020 starts from standard noise on normalised pixels); `pattern` repeats one such
    4×4-pixel tile over the image (Geiping's later recipe).

    Returns:
        Shape (restarts, candidates, channels, height, width) in [0, 1].
    """
    sides = observation.image_shape[1:]
    shape = (settings.restarts, observation.candidates, *observation.image_shape)
    if settings.start == "pattern":
        tiles = torch.randn(*shape[:3], *(TILE for _ in sides), generator=generator, device="cpu")
        repeated = tiles.repeat(1, 1, 1, *(-(-side // TILE) for side in sides))
        noise = repeated[tuple(slice(length) for length in shape)]
    else:
        noise = torch.randn(shape, generator=generator, device="cpu")
    noise = noise.to(observation.before.device)
    if settings.start != "prior":
        return (NOISE_MEAN + NOISE_DEVIATION * noise).clamp(0, 1)
    prior = observation.candidate_prior
    assert prior is not None  # `usable_settings` has seen to it
    several = observation.candidates > 1 or settings.restarts > 1
    return (prior + (settings.start_jitter if several else 0.0) * noise).clamp(0, 1)
