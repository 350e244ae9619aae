"""Options of local training: recomputed steps, soft labels, binary cross-entropy, the assumed schedule."""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest
import torch
from torch.nn.functional import one_hot

from leakpipe.client.batches import Batch, assume_schedule, schedule_batches
from leakpipe.client.local_update import LocalSettings, local_update, mean_loss
from leakpipe.models.state import ModelState, forward_training
from tests.conftest import SETTINGS, small_batches, small_state

RECOMPUTING = replace(SETTINGS, recompute_steps=True)


def soft(batches: Sequence[Batch], *, seed: int = 5) -> list[Batch]:
    """The same images with shares of both classes, all requiring a gradient."""
    generator = torch.Generator().manual_seed(seed)
    shares = [torch.rand(len(b.images), 2, generator=generator, dtype=torch.float64).softmax(dim=1) for b in batches]
    return [
        Batch(batch.images.clone().requires_grad_(), share.requires_grad_())
        for batch, share in zip(batches, shares, strict=True)
    ]


def probe_gradients(state: ModelState, batches: list[Batch], settings: LocalSettings) -> list[torch.Tensor]:
    """Gradients of a fixed random function of the whole update, by images and labels."""
    update = local_update(state, batches, settings)
    tensors = {**update.weights, **update.statistics}
    generator = torch.Generator().manual_seed(9)
    total = sum(
        (torch.randn(value.shape, generator=generator, dtype=value.dtype) * (value + value.square())).sum()
        for _, value in sorted(tensors.items())
    )
    inputs = [value for batch in batches for value in (batch.images, batch.labels) if value.requires_grad]
    return list(torch.autograd.grad(total, inputs))


@pytest.mark.parametrize("batch_norm", ["training", "frozen"])
@pytest.mark.parametrize("loss", ["cross-entropy", "binary-cross-entropy"])
def test_recomputed_steps_give_the_same_update_and_gradients(batch_norm: str, loss: str) -> None:
    state, batches = small_state(), soft(small_batches(3, 2, 2))
    plain = replace(SETTINGS, batch_norm=batch_norm, loss=loss)  # type: ignore[arg-type]
    recomputing = replace(plain, recompute_steps=True)
    expected, found = local_update(state, batches, plain), local_update(state, batches, recomputing)
    assert found.steps == 3
    for part in ("weights", "statistics"):
        for name, value in getattr(expected, part).items():
            torch.testing.assert_close(getattr(found, part)[name], value, rtol=1e-13, atol=1e-15)
    gradients = probe_gradients(state, batches, recomputing)
    assert len(gradients) == 6
    for mine, theirs in zip(gradients, probe_gradients(state, batches, plain), strict=True):
        assert theirs.any()
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-13)


def test_recomputed_steps_where_only_some_batches_need_a_gradient() -> None:
    state, batches = small_state(), small_batches(2, 2, 2)
    batches[1] = Batch(batches[1].images.requires_grad_(), batches[1].labels)
    (expected,) = probe_gradients(state, batches, SETTINGS)
    (found,) = probe_gradients(state, batches, RECOMPUTING)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-13)


def test_nothing_is_recomputed_without_a_gradient() -> None:
    state, batches = small_state(), small_batches(2, 2)
    expected, found = local_update(state, batches, SETTINGS), local_update(state, batches, RECOMPUTING)
    for name, value in expected.weights.items():
        assert torch.equal(found.weights[name], value)
        assert not found.weights[name].requires_grad


@dataclass
class Kept:
    """Bytes that graphs hold for their backward passes, now and at most."""

    now: int = 0
    most: int = 0


@contextmanager
def counting_kept_bytes() -> Iterator[Kept]:
    kept = Kept()

    class Saved:
        def __init__(self, value: torch.Tensor) -> None:
            self.value, self.size = value, value.numel() * value.element_size()
            kept.now += self.size
            kept.most = max(kept.most, kept.now)

        def __del__(self) -> None:
            kept.now -= self.size

    with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.value):
        yield kept


def most_kept(steps: int, settings: LocalSettings) -> int:
    state, batches = small_state(), soft(small_batches(*[16] * steps))
    gc.collect()
    with counting_kept_bytes() as kept:
        probe_gradients(state, batches, settings)
    return kept.most


def test_recomputed_steps_keep_one_step_instead_of_all() -> None:
    plain, recomputing = ({steps: most_kept(steps, how) for steps in (1, 4)} for how in (SETTINGS, RECOMPUTING))
    assert plain[4] > 3 * plain[1]
    assert recomputing[4] < 1.5 * recomputing[1]
    assert recomputing[4] < 0.5 * plain[4]


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
