"""An inverse of the layers below the recovered maps, learned from public images: where a search finds none."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate, pixel_shuffle, pixel_unshuffle

from leakpipe.attacks.recursive.forward import FixedNetwork
from leakpipe.attacks.recursive.image import neighbour_differences

LEAST_PUBLIC = 8  # images, from which on an inverse is learned
HELD_OUT, MOST_HELD_OUT = 8, 16  # every so many-th public image, and how many of these, tell how good an inverse is
LEAST_CHANNELS = 32  # of features at half the image's resolution
FLAT = 1e-3  # of all channels' mean deviation: the least that a channel is divided by


@dataclass(frozen=True)
class LearnedSettings:
    """How the inverse is learned.

    Attributes:
        steps: Of Adam.
        images: Drawn in each step. As many come from the steps before, from the image that the inverse made of them.
        channels: Of features at the maps' resolution, half as many at twice that.
        rate: The highest step size, of a single cosine cycle.
        averaging: Decay of the running mean of parameters, which is the result.
        passes: How often the learned inverse is applied, each time to the images of the time before.
        shift: Furthest that an image is moved, as a share of its sides.
        field: Largest deviation of the random fields that are added to images.
    """

    steps: int = 800
    images: int = 2
    channels: int = 128
    rate: float = 2e-3
    averaging: float = 0.99
    passes: int = 3
    shift: float = 0.05
    field: float = 0.08


class LearnedInverse:
    """Images from their feature maps, by a convolutional network that is trained on public images.

    It is given the maps that are wanted, an image, and what that image's maps are, and returns a better image; applied
    again to its own result, as in recurrent inference machines (Putzky, Welling 2017, arXiv:1706.04008). Feature maps
    were first inverted by a trained network by Dosovitskiy and Brox (CVPR 2016, arXiv:1506.02753), whole updates by Wu
    et al. (*Learning to Invert*, UAI 2023, arXiv:2210.10880).

    Args:
        network: Makes maps of images, with batch normalisation at the update's statistics.
        errors: Relative error of each recovered map, by the convolution that reads it: training maps get as much noise.
        public: Images of shape (count, channels, height, width) in [0, 1]; their mean is where rebuilding starts.
        settings: How it is learned.
        generator: Draws all that is random.

    Attributes:
        squared_error: Mean over the pixels of public images that it has not learned from, every eighth.
    """

    def __init__(
        self,
        network: FixedNetwork,
        errors: Mapping[str, float],
        public: Tensor,
        settings: LearnedSettings,
        generator: torch.Generator,
    ) -> None:
        self.network, self.errors, self.settings = network, errors, settings
        held = torch.arange(len(public)) % HELD_OUT == 0
        self.public, self.generator = public[~held].float(), generator
        self.start = self.public.mean(dim=0, keepdim=True)
        examples = torch.cat([self._maps(image[None]) for image in self.public[:64]])
        self.mean = examples.mean((0, 2, 3), keepdim=True)
        self.deviation = examples.std((0, 2, 3), keepdim=True) + FLAT * examples.std()
        self.stride = self.public.shape[2] // examples.shape[2]
        self.model = self._train()
        unseen = public[held][:MOST_HELD_OUT].float().split(1)
        gaps = [self._rebuild(self._with_errors(self._maps(image))) - image for image in unseen]
        self.squared_error = float(torch.cat(gaps).square().mean())

    def rebuild(self, maps: Mapping[str, Tensor]) -> Tensor:
        """Returns the images of maps, shape (batch, channels, height, width) in [0, 1]."""
        return self._rebuild(join_maps([maps[name].float() for name in self.errors]))

    @torch.no_grad()
    def _rebuild(self, wanted: Tensor) -> Tensor:
        images = self.start.expand(len(wanted), -1, -1, -1)
        for _ in range(self.settings.passes):
            images = self._improve(self.model, wanted, images).clamp(0, 1)
        return images

    def _maps(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            maps = self.network.maps(images, list(self.errors))
        return join_maps([maps[name] for name in self.errors])

    def _improve(self, model: nn.Module, wanted: Tensor, images: Tensor) -> Tensor:
        own = self._maps(images)
        pixels = pixel_unshuffle(images - self.start.mean(), self.stride)
        features = [(wanted - own) / self.deviation, (own - self.mean) / self.deviation, pixels]
        improved: Tensor = images + model(torch.cat(features, 1).to(memory_format=torch.channels_last))
        return improved

    def _train(self) -> nn.Module:
        settings, entries = self.settings, 2 * self.mean.shape[1] + self.stride**2 * self.public.shape[1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (), generator=self.generator)))
            model = build_inverse(entries, settings.channels, self.stride, self.public.shape[1])
        model = model.to(self.public.device).to(memory_format=torch.channels_last)
        averaged = torch.optim.swa_utils.AveragedModel(
            model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(settings.averaging)
        )
        optimizer = torch.optim.Adam(model.parameters(), lr=settings.rate, betas=(0.9, 0.98))
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, settings.rate, total_steps=settings.steps, pct_start=0.1, final_div_factor=100
        )
        kept: tuple[Tensor, ...] = ()  # images, their maps, what the inverse made of them, how often it was applied
        for _ in range(settings.steps):
            images = self.draw(settings.images)
            maps = self._with_errors(self._maps(images))
            drawn = images, maps, self.start.expand_as(images), torch.zeros(len(images))
            batch = tuple(map(torch.cat, zip(drawn, kept, strict=True))) if kept else drawn
            images, maps, start, ages = batch
            optimizer.zero_grad()
            made = self._improve(model, maps, start)
            edge_loss(made - images).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            averaged.update_parameters(model)
            youngest = ages.argsort(stable=True)[: settings.images]
            after = images, maps, made.detach().clamp(0, 1), ages + 1
            kept = tuple(part[youngest] for part in after)
        trained: nn.Module = averaged.module
        return trained

    def draw(self, count: int) -> Tensor:
        """Draws public images and changes them: mirrored, moved, mixed, of other contrast, with random fields on top.

        Returns:
            Shape (count, channels, height, width) in [0, 1].
        """
        public, generator = self.public, self.generator
        device, (height, width) = public.device, public.shape[2:]

        def uniform(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)

        def chosen(probability: float) -> Tensor:
            return (torch.rand(count, 1, 1, 1, generator=generator) < probability).float()

        images, others = (public[torch.randint(len(public), (count,), generator=generator)] for _ in range(2))
        mirrored = chosen(0.5).to(device)
        images = mirrored * images.flip(3) + (1 - mirrored) * images
        furthest = [int(side * self.settings.shift) for side in (height, width)]
        moves = [int(torch.randint(-most, most + 1, (), generator=generator)) for most in furthest]
        images = images.roll(moves, (2, 3))
        share = (uniform(0, 0.5) * chosen(0.5)).to(device)
        images = (1 - share) * images + share * others
        images = (images - 0.5) * uniform(0.8, 1.2).to(device) + 0.5 + uniform(-0.1, 0.1).to(device)
        fields = random_fields(images.shape, uniform(0.5, 2), generator) * uniform(0, self.settings.field) * chosen(0.6)
        return (images + fields.to(device)).clamp(0, 1)

    def _with_errors(self, maps: Tensor) -> Tensor:
        parts, sizes = [], [layer.weight.shape[1] for layer in map(self.network.layers.__getitem__, self.errors)]
        for part, error in zip(maps.split(sizes, 1), self.errors.values(), strict=True):
            noise = torch.randn(part.shape, generator=self.generator).to(part.device)
            parts.append(part + error * part.square().mean().sqrt() * noise)
        return torch.cat(parts, 1)


def can_learn(image: Sequence[int], map_side: Sequence[int]) -> bool:
    """Returns whether an inverse fits: images are larger than maps by the same power of two in both directions."""
    stride = image[0] // map_side[0]
    return stride > 1 and math.log2(stride).is_integer() and [side * stride for side in map_side] == list(image)


def join_maps(maps: Sequence[Tensor]) -> Tensor:
    """Returns maps as channels of one, at the resolution of the first, which is the largest."""
    size = maps[0].shape[2:]
    return torch.cat([part if part.shape[2:] == size else interpolate(part, size=size) for part in maps], 1)


def edge_loss(gap: Tensor) -> Tensor:
    """Returns the mean absolute error, and half of that of neighbours' differences, which edges count by."""
    vertical, horizontal = neighbour_differences(gap)
    return gap.abs().mean() + 0.5 * (vertical.abs().mean() + horizontal.abs().mean())


def random_fields(shape: Sequence[int], exponents: Tensor, generator: torch.Generator) -> Tensor:
    """Draws Gaussian random fields whose amplitude falls with frequency.

    Args:
        shape: (count, channels, height, width).
        exponents: Power of the frequency that amplitudes are divided by, shape (count, 1, 1, 1).
        generator: On the CPU.

    Returns:
        Of this shape, each of deviation 1.
    """
    height, width = shape[-2:]
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None])
    spectrum = torch.fft.rfft2(torch.randn(*shape, generator=generator))
    fields = torch.fft.irfft2(spectrum * frequency.clamp_min(1 / max(height, width)) ** -exponents, s=(height, width))
    scaled: Tensor = fields / fields.std((2, 3), keepdim=True)
    return scaled


class _Residual(nn.Module):
    """x + two convolutions of it; x itself at the start."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        _set_zero(self.second)

    def forward(self, features: Tensor) -> Tensor:
        change: Tensor = self.second(gelu(self.first(gelu(features))))
        return features + change


class _Upwards(nn.Module):
    """Twice the resolution, by channels that become pixels."""

    def __init__(self, entered: int, left: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(entered, 4 * left, 1)

    def forward(self, features: Tensor) -> Tensor:
        return pixel_shuffle(self.mix(features), 2)


def build_inverse(entries: int, channels: int, stride: int, image_channels: int) -> nn.Sequential:
    """Builds the network from maps to changes of an image, which are 0 before training.

    Args:
        entries: Channels that it reads.
        channels: Of features at the maps' resolution.
        stride: Power of two by which images are larger than maps.
        image_channels: Of the image.
    """
    layers: list[nn.Module] = [nn.Conv2d(entries, channels, 1), *(_Residual(channels) for _ in range(3))]
    for _ in range(int(math.log2(stride)) - 1):
        entered, channels = channels, max(channels // 2, LEAST_CHANNELS)
        layers += [_Upwards(entered, channels), _Residual(channels)]
    last = nn.Conv2d(channels, 4 * image_channels, 3, padding=1)
    _set_zero(last)
    return nn.Sequential(*layers, last, nn.PixelShuffle(2))


def _set_zero(layer: nn.Conv2d) -> None:
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
