"""Options of local training: soft labels, binary cross-entropy, the assumed schedule."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import one_hot

from leakpipe.client.batches import Batch, assume_schedule, schedule_batches
from leakpipe.client.local_update import local_update, mean_loss
from leakpipe.models.state import forward_training
from tests.conftest import SETTINGS, small_batches, small_state


def soft(batches: Sequence[Batch], *, seed: int = 5) -> list[Batch]:
    """The same images with shares of both classes, all requiring a gradient."""
    generator = torch.Generator().manual_seed(seed)
    shares = [torch.rand(len(b.images), 2, generator=generator, dtype=torch.float64).softmax(dim=1) for b in batches]
    return [
        Batch(batch.images.clone().requires_grad_(), share.requires_grad_())
        for batch, share in zip(batches, shares, strict=True)
    ]


def test_shares_of_one_class_are_its_index() -> None:
    state, batches = small_state(), small_batches(3, 2)
    shares = [Batch(batch.images, one_hot(batch.labels, 2).double()) for batch in batches]
    expected, found = local_update(state, batches, SETTINGS), local_update(state, shares, SETTINGS)
    for name, value in expected.weights.items():
        torch.testing.assert_close(found.weights[name], value, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("loss", ["cross-entropy", "binary-cross-entropy"])
def test_losses_of_shares_equal_their_formula(loss: str) -> None:
    """−Σ_c y log p over classes, or the mean over classes of −y log σ − (1 − y) log(1 − σ)."""
    generator = torch.Generator().manual_seed(0)
    logits, labels = (torch.randn(4, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    labels = labels.softmax(dim=1)
    if loss == "cross-entropy":
        expected = -(labels * (logits.exp() / logits.exp().sum(dim=1, keepdim=True)).log()).sum(dim=1).mean()
    else:
        on = 1 / (1 + (-logits).exp())
        expected = -(labels * on.log() + (1 - labels) * (1 - on).log()).mean()
    settings = replace(SETTINGS, loss=loss)  # type: ignore[arg-type]
    torch.testing.assert_close(mean_loss(logits, labels, settings), expected)


@pytest.mark.parametrize("loss", ["cross-entropy", "binary-cross-entropy"])
def test_label_gradient_equals_finite_differences(loss: str) -> None:
    state, batches = small_state(), soft(small_batches(2, 1))
    settings = replace(SETTINGS, loss=loss)  # type: ignore[arg-type]

    def head(*labels: torch.Tensor) -> torch.Tensor:
        given = [Batch(batch.images.detach(), label) for batch, label in zip(batches, labels, strict=True)]
        update = local_update(state, given, settings)
        return torch.cat([update.weights["head.bias"], update.weights["features.0.weight"].flatten()])

    assert torch.autograd.gradcheck(head, [batch.labels for batch in batches], eps=1e-6, atol=1e-6, rtol=1e-4)


def test_one_step_of_binary_cross_entropy_is_its_gradient() -> None:
    """∂loss/∂(head's bias) = Σ over the batch of (σ(z) − y) / (images · classes)."""
    state, (batch,) = small_state(), soft(small_batches(3))
    logits, _ = forward_training(state, batch.images)
    expected = -SETTINGS.learning_rate * (logits.sigmoid() - batch.labels).sum(dim=0) / (3 * 2)
    found = local_update(state, [batch], replace(SETTINGS, loss="binary-cross-entropy"))
    torch.testing.assert_close(found.weights["head.bias"], expected)


@pytest.mark.parametrize(("images", "batch_size", "epochs"), [(1, 1, 1), (5, 2, 3), (4, 4, 2), (3, 8, 1)])
def test_assumed_schedule_is_like_the_clients_but_in_turn(images: int, batch_size: int, epochs: int) -> None:
    assumed = assume_schedule(images, batch_size, epochs)
    true = schedule_batches(images, batch_size, epochs, torch.Generator().manual_seed(0))
    assert [len(step) for step in assumed] == [len(step) for step in true]
    assert [position for step in assumed for position in step] == list(range(images)) * epochs
