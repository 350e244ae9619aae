"""Mixup (Zhang, Cissé, Dauphin, Lopez-Paz 2018, "mixup: Beyond Empirical Risk Minimization"): training on blends."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import one_hot

from leakpipe.client.batches import Batch


def mix_batches(batches: Sequence[Batch], *, alpha: float, classes: int, seed: int) -> list[Batch]:
    """Blend every batch with itself in another order: λ·batch + (1 − λ)·reordered, images and labels alike.

    λ is drawn from Beta(α, α), once per batch, as in the authors' code. A batch of one image stays as it is.

    Args:
        batches: With class indices as labels.
        alpha: α; the larger, the nearer λ is to a half.
        seed: Fixes the λs and the orders.

    Returns:
        Batches whose labels are a share of each class, shape (batch, classes).
    """
    draws = np.random.default_rng(seed)
    mixed = []
    for batch in batches:
        share = float(draws.beta(alpha, alpha))
        order = torch.from_numpy(draws.permutation(len(batch.images)))
        labels = one_hot(batch.labels, classes).to(batch.images.dtype)
        mixed.append(
            Batch(
                torch.lerp(batch.images[order], batch.images, share),
                torch.lerp(labels[order], labels, share),
            )
        )
    return mixed
