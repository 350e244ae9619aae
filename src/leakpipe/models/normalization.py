"""Layers that networks normalise with, by what `model.normalization` calls them."""

from collections.abc import Callable

from torch import nn

Normalization = Callable[[int], nn.Module]
GROUPS = 32  # Wu and He 2018


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation (Wu and He 2018) of `channels` channels.

    As many groups as divide the channels evenly, at most 32 and at least 2 channels each: a channel by itself would
    be instance normalisation, which cannot train on a feature map of one pixel.
    """
    most = max(1, min(GROUPS, channels // 2))
    return nn.GroupNorm(next(groups for groups in range(most, 0, -1) if channels % groups == 0), channels)


NORMALIZATIONS: dict[str, Normalization] = {"batch": nn.BatchNorm2d, "group": group_norm}
