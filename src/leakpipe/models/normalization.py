"""Normalisation layers of networks, by the names of `model.normalization`."""

from collections.abc import Callable

from torch import nn

Normalization = Callable[[int], nn.Module]
GROUPS = 32  # Wu and He 2018


def group_norm(channels: int) -> nn.GroupNorm:
    """Returns group normalisation (Wu and He 2018) of `channels` channels.

    It has the largest number of groups, up to 32, that divides the channels evenly into groups of 2 or more: one
    channel per group would be instance normalisation, which cannot train on a feature map of one pixel.
    """
    most = max(1, min(GROUPS, channels // 2))
    return nn.GroupNorm(next(groups for groups in range(most, 0, -1) if channels % groups == 0), channels)


NORMALIZATIONS: dict[str, Normalization] = {"batch": nn.BatchNorm2d, "group": group_norm}
