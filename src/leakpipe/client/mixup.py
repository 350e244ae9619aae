"""Mixup: training on blends of images and labels (Zhang 2018, "mixup: Beyond Empirical Risk Minimization")."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import one_hot

from leakpipe.client.batches import Batch


def mix_batches(batches: Sequence[Batch], *, alpha: float, classes: int, seed: int) -> list[Batch]:
    """Blends every batch with a permutation of itself: λ·batch + (1 − λ)·permuted, images and labels alike.

    As in the authors' code, one λ from Beta(α, α) is drawn for each batch. A batch of one image does not change.

    Args:
        batches: Their labels are class indices.
        alpha: α; the larger, the closer λ is to a half.
        seed: Determines each λ and permutation.

    Returns:
        Batches whose labels are a share of each class, shape (batch, classes).
    """
    draws = np.random.default_rng(seed)
    mixed = []
    for batch in batches:
        share = float(draws.beta(alpha, alpha))
        order = torch.from_numpy(draws.permutation(len(batch.images)))
        labels = one_hot(batch.labels, classes).to(batch.images.dtype)
        images = torch.lerp(batch.images[order], batch.images, share)
        mixed.append(Batch(images, torch.lerp(labels[order], labels, share)))
    return mixed
