"""Which units a ReLU let pass: from values near zero, and from gradients read behind it.

After batch normalisation's backward pass one wrong unit stands out, so masks matter more than values. A unit in doubt
is one whose value is not far from 0 by the value's own noise. Three things settle it, none of which needs the truth:

- batch normalisation's bias gradient is the sum of the gradients that passed, channel by channel: a channel that holds
  a wrong unit breaks it (`trust_channels`), so that its equations are left out at first;
- the gradient that is read behind the unit, divided by the one that arrives, is 1 where it is on and 0 where it is off
  (`read_mask`);
- both are repeated with the better map that the better mask gives, until no unit changes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from leakpipe.attacks.recursive.layer import Layer

ON = 4.0  # deviations of the noise, above which a unit is taken to be on
CERTAIN = 20.0  # deviations, above which it is certain
PRECISION = 1e-4  # relative, of gradients that come down to a ReLU
BREACH = 4.0  # deviations of a sum of gradients that are no rounding


@dataclass(frozen=True)
class Mask:
    """Which units are on.

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
        """How many units are taken to be on though their values could be noise."""
        return int(((self.on > 0) & (self.certain == 0)).sum())


def estimate_noise(values: Tensor) -> float:
    """Returns the deviation of a nonnegative map's noise: the root mean square of the entries below 0."""
    below = values[values < 0]
    return float(below.square().mean().sqrt()) if len(below) else 0.0


def guess_mask(values: Tensor) -> Mask:
    """Returns the mask of a solved map, whose entries where a unit is off scatter around 0."""
    noise = estimate_noise(values)
    certain = values > CERTAIN * noise
    return Mask((values > ON * noise).double(), certain.double(), values.abs() <= CERTAIN * noise)


def trust_channels(layer: Layer, passed: Tensor) -> Tensor:
    """Returns 1 for channels where batch normalisation's bias gradient is the sum of what passed, else 0.

    Args:
        layer: Whose batch normalisation receives the gradient.
        passed: Gradient that passed the ReLU, shape of the layer's output.
    """
    misfit = layer.shift_gradient - passed.sum(dim=(0, 2, 3))
    noise = (layer.gradient_noise[:, 0].square() + (PRECISION * passed).square().sum(dim=(0, 2, 3))).sqrt()
    return (misfit.abs() <= BREACH * noise).double()


def read_mask(mask: Mask, passed: Tensor, arriving: Tensor) -> Mask:
    """Returns the mask with units near zero decided by the quotient of the gradients behind and before the ReLU.

    Args:
        mask: A guess, which stands where a unit is not near zero, or too little arrives to tell.
        passed: Gradient that passed the ReLU, as read from a weight gradient.
        arriving: Gradient at the ReLU's output.
    """
    error = float((passed - arriving * mask.on).square().mean().sqrt())
    tells = mask.near & (arriving.abs() > error)
    on = torch.where(tells, (passed * arriving.sign() > arriving.abs() / 2).double(), mask.on)
    return Mask(on, mask.certain, mask.near)
