"""The units that a ReLU let pass: from values near zero, and from gradients read behind it.

After batch normalisation's backward pass one wrong unit stands out, so masks matter more than values. A unit in doubt
is one whose value is not far from 0 by the value's own noise. Three things settle it, none of which needs the truth:

- batch normalisation's bias gradient is the sum of the gradients that passed, channel by channel: a channel that holds
  a wrong unit breaks it (`trust_channels`), so that its equations are left out at first, and the value from which on
  units are on is the one that leaves the fewest such channels (`choose_mask`);
- in such channels, the gradient that is read behind the unit, divided by the one that arrives, is 1 where it is on and
  0 where it is off (`read_mask`);
- both are repeated with the better map that the better mask gives, until no unit changes.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leakpipe.attacks.recursive.layer import PRECISION, Layer, by_channel

ON = 4.0  # deviations of the noise, below which no unit is taken to be on
SEARCHED = 100.0  # deviations, up to which the gap between units that are off and on is looked for
THRESHOLDS = tuple(ON * 1.25**step for step in range(15))  # deviations, tried one after the other
LARGE = 0.05  # of the root mean square of a map's units
CERTAIN = 20.0  # deviations, above which it is certain
PRIOR_COUNT = 2.0
GOOD_READING = 0.03  # relative error of a gradient that is read
LEAST_TRUST = 0.4
MEDIAN = 0.6745  # of the size of a normal variable, in deviations
WORST_PRECISION = 2e-3  # relative, of gradients among whose channels half may be wrong
BREACH = 4.0  # deviations of a sum of gradients that are no rounding


@dataclass(frozen=True)
class Mask:
    """The units that are on.

    Attributes:
        on: Of 0 and 1, shape of the map.
        certain: Where a unit is on beyond doubt, of 0 and 1.
        near: Where a unit's value does not tell whether it is on.
    """

    on: Tensor
    certain: Tensor
    near: Tensor

    @property
    def doubtful(self) -> int:
        """The number of units that are taken to be on though their values could be noise."""
        return int(((self.on > 0) & (self.certain == 0)).sum())


def estimate_noise(values: Tensor) -> Tensor:
    """Returns the deviation of a nonnegative map's noise at each position, shape (batch, 1, height, width).

    Entries where units are off scatter around 0, so it is the root mean square of those below 0. Noise differs between
    positions far more than between channels; the map's mean stands in for `PRIOR_COUNT` further channels.
    """
    below = values.clamp_max(0).square()
    counts = (values < 0).sum(dim=1, keepdim=True)
    overall = below.sum() / counts.sum().clamp_min(1)
    return ((below.sum(dim=1, keepdim=True) + PRIOR_COUNT * overall) / (counts + PRIOR_COUNT)).sqrt()


def guess_mask(values: Tensor) -> Mask:
    """Returns the mask of a solved map, whose entries where a unit is off scatter around 0, or a little beside it.

    Units are on from the widest gap on, in ratio, between neighbouring values not far above the noise.
    """
    noise = estimate_noise(values)
    ratio = (values / noise.clamp_min(1e-300)).flatten()
    window = ratio[(ratio > ON) & (ratio < SEARCHED)].sort().values
    edges = torch.cat([ratio.new_tensor([ON]), window, ratio.new_tensor([SEARCHED])]).log()
    widest = int(edges.diff().argmax())
    return _mask_above(values, noise, float((edges[widest] + edges[widest + 1]).div(2).exp()))


def keep_large(mask: Mask, values: Tensor) -> Mask:
    """Returns the mask with none but large units certain.

    Args:
        mask: Any.
        values: The map that it is of.
    """
    return replace(mask, certain=mask.certain * (values > LARGE * values.square().mean().sqrt()))


def choose_mask(values: Tensor, layer: Layer, arriving: Tensor) -> Mask:
    """Returns the mask that most channels' sums of gradients bear out; that of `guess_mask` where none is better.

    Where rounding is no small part of the gradient, it is the mask whose sums are the closest instead: within noise,
    the sums of a mask of zeros hold in every channel.

    Args:
        values: A solved map, as for `guess_mask`.
        layer: Whose batch normalisation is in front of the ReLU that gave the map.
        arriving: Gradient of the loss at the map.
    """
    noise = estimate_noise(values)
    masks = [guess_mask(values), *(_mask_above(values, noise, threshold) for threshold in THRESHOLDS)]
    if layer.is_rounded:
        return min(masks, key=lambda mask: float(_gaps(layer, arriving * mask.on).sum()))
    return max(masks, key=lambda mask: int(sums_hold(layer, arriving * mask.on).sum()))


def _mask_above(values: Tensor, noise: Tensor, threshold: float) -> Mask:
    """The mask of a map whose units are on above `threshold` deviations of its noise."""
    limit = max(CERTAIN, CERTAIN / ON * threshold) * noise
    return Mask((values > threshold * noise).double(), (values > limit).double(), values.abs() <= limit)


def trust_channels(layer: Layer, passed: Tensor) -> Tensor:
    """Returns 1 for channels where batch normalisation's bias gradient is the sum of what passed, else 0.

    Where few channels would be left, all are trusted.

    Args:
        layer: Whose batch normalisation receives the gradient.
        passed: Gradient that passed the ReLU, shape of the layer's output.
    """
    trusted = sums_hold(layer, passed, adapt=layer.is_rounded).double()
    return trusted if float(trusted.mean()) > LEAST_TRUST else torch.ones_like(trusted)


def sums_hold(layer: Layer, passed: Tensor, *, adapt: bool = False) -> Tensor:
    """Returns, for each channel, whether batch normalisation's bias gradient is the sum of what passed.

    Args:
        layer: Whose batch normalisation receives the gradient.
        passed: As for `trust_channels`.
        adapt: Whether the precision of `passed` is what the channels' median tells, instead of `PRECISION`.
    """
    misfit = _gaps(layer, passed)
    size = passed.square().sum(dim=(0, 2, 3)).sqrt()
    precision = PRECISION
    if adapt:
        median = float((misfit / size.clamp_min(1e-300)).median())
        precision = min(max(PRECISION, median / MEDIAN), WORST_PRECISION)
    return misfit <= BREACH * (layer.gradient_noise[:, 0].square() + (precision * size).square()).sqrt()


def _gaps(layer: Layer, passed: Tensor) -> Tensor:
    """By how much the sum of what passed misses batch normalisation's bias gradient, for each channel."""
    return (layer.shift_gradient - passed.sum(dim=(0, 2, 3))).abs()


def read_mask(mask: Mask, passed: Tensor, arriving: Tensor, layer: Layer) -> Mask:
    """Returns the mask with units near zero decided by the quotient of the gradients behind and before the ReLU.

    A channel that keeps the sum of its gradients has no wrong unit and is left as it is: what is read from a map with
    an error would put more units wrong than right.

    Args:
        mask: A guess, which stands where a unit is not near zero, or too little arrives to tell.
        passed: Gradient that passed the ReLU, as read from a weight gradient.
        arriving: Gradient at the ReLU's output.
        layer: Whose batch normalisation is in front of the ReLU. Where the reading is poor, channels whose sums hold as
            nearly as most do are left as well.
    """
    masked = arriving * mask.on
    error = float((passed - masked).square().mean().sqrt())
    settled = sums_hold(layer, masked)
    if error > GOOD_READING * float(arriving.square().mean().sqrt()):
        settled |= trust_channels(layer, masked) > 0
    tells = mask.near & (arriving.abs() > error) & ~by_channel(settled)
    on = torch.where(tells, (passed * arriving.sign() > arriving.abs() / 2).double(), mask.on)
    return Mask(on, mask.certain, mask.near)
