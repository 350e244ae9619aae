"""Mixup against a naive blend of single images, the spread of its shares, and a whole client's training."""

import numpy as np
import torch
from scipy.stats import beta, kstest
from torch.nn.functional import cross_entropy, one_hot

from leakpipe.client.batches import Batch
from leakpipe.client.local_update import local_update
from leakpipe.client.mixup import mix_batches
from tests.conftest import SETTINGS, small_batches, small_state


def test_each_image_is_a_blend_of_two_of_its_batch_and_so_is_its_label() -> None:
    batches = small_batches(5, 3)
    for batch, mixed in zip(batches, mix_batches(batches, alpha=1, classes=2, seed=7), strict=True):
        images, labels = batch.images, one_hot(batch.labels, 2).double()
        shares = set()
        for position, (blend, label) in enumerate(zip(mixed.images, mixed.labels, strict=True)):
            fits = []
            for partner in range(len(images)):
                if partner == position:
                    continue
                apart = (images[position] - images[partner]).flatten()
                share = float((blend - images[partner]).flatten() @ apart / (apart @ apart))
                naive = share * images[position] + (1 - share) * images[partner]
                if torch.allclose(naive, blend, atol=1e-12):
                    fits.append(share)
                    torch.testing.assert_close(label, share * labels[position] + (1 - share) * labels[partner])
            if not fits:  # blended with itself
                torch.testing.assert_close(blend, images[position])
                torch.testing.assert_close(label, labels[position])
            shares.update(round(share, 9) for share in fits)
        assert len(shares) == 1, "one share per batch"


def test_shares_are_beta_distributed() -> None:
    pair = Batch(torch.tensor([0.0, 1.0], dtype=torch.float64).reshape(2, 1, 1, 1), torch.tensor([0, 1]))
    mixed = mix_batches([pair] * 4000, alpha=0.4, classes=2, seed=3)
    shares = np.array([float(each.images[1]) for each in mixed if float(each.images[1]) != 1])  # 1: not reordered
    assert 1800 < len(shares) < 2200
    assert kstest(shares, beta(0.4, 0.4).cdf).pvalue > 1e-3
    assert kstest(shares, beta(1, 1).cdf).pvalue < 1e-3


def test_the_loss_is_the_published_one_and_one_image_alone_is_not_protected() -> None:
    state, (batch,) = small_state(), small_batches(4)
    (mixed,) = mix_batches([batch], alpha=1, classes=2, seed=1)
    logits = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    first, second = (cross_entropy(logits, torch.full((4,), label), reduction="none") for label in (0, 1))
    expected = (mixed.labels[:, 0] * first + mixed.labels[:, 1] * second).mean()
    torch.testing.assert_close(cross_entropy(logits, mixed.labels), expected)
    (single,) = small_batches(1)
    plain = local_update(state, [single], SETTINGS)
    blended = local_update(state, mix_batches([single], alpha=1, classes=2, seed=1), SETTINGS)
    for name, value in plain.weights.items():
        torch.testing.assert_close(blended.weights[name], value, rtol=1e-12, atol=1e-15)
