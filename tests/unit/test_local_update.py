"""`local_update` against a plain torch loop, closed forms and finite differences; schedules and batches."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from leakpipe.client.batches import Batch, assume_schedule, make_batches, schedule_batches
from leakpipe.client.local_update import LocalSettings, local_update
from leakpipe.client.losses import training_loss
from leakpipe.models.preprocessing import normalize_input
from leakpipe.models.state import ModelState, forward_training
from leakpipe.params.training import LossParams, TrainingParams
from tests.conftest import SETTINGS, small_batches, small_state

LOSSES = pytest.mark.parametrize("loss", ["cross-entropy", "binary-cross-entropy"])


def minimising(loss: Any) -> LocalSettings:
    return replace(SETTINGS, training=TrainingParams(loss=LossParams(kind=loss)))


class TorchNet(nn.Module):
    """The network of `small_state` built from torch's own layers only."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
        )
        self.head = nn.Linear(6 * 4 * 4, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(normalize_input(images)).flatten(1))


def train_with_torch(state: ModelState, batches: list[Batch]) -> dict[str, Tensor]:
    """Weights and running statistics after training with torch.optim.SGD and torch's batch normalisation."""
    net = TorchNet().to(next(iter(state.weights.values())).dtype)
    net.load_state_dict({**state.weights, **state.statistics}, strict=False)
    optimizer = torch.optim.SGD(net.train().parameters(), lr=SETTINGS.learning_rate)
    for batch in batches:
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(batch.images), batch.labels).backward()
        optimizer.step()
    return net.state_dict()


CASES = [(size, torch.float64, 1e-12) for size in ((1,), (4,), (3, 3), (4, 2, 1), (2, 2) * 3)]
# In float32 few steps only: ReLU makes long trajectories drift apart by rounding alone.
CASES += [(size, torch.float32, 2e-6) for size in ((1,), (4,), (3, 3))]


@pytest.mark.parametrize(("sizes", "dtype", "tolerance"), CASES)
def test_equals_a_plain_torch_loop(sizes: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    state, batches = small_state(dtype=dtype), small_batches(*sizes, dtype=dtype)
    update, trained = local_update(state, batches, SETTINGS), train_with_torch(state, batches)
    assert update.steps == len(sizes)
    for name, before in {**state.weights, **state.statistics}.items():
        found = before + {**update.weights, **update.statistics}[name]
        torch.testing.assert_close(found, trained[name], rtol=0, atol=tolerance)


def test_running_variance_is_unbiased() -> None:
    """With 64 values per channel biased and unbiased differ by 1.6 %, far above rounding."""
    state, (batch,) = small_state(), small_batches(1)
    update = local_update(state, [batch], SETTINGS)
    seen = nn.functional.conv2d(normalize_input(batch.images), state.weights["features.0.weight"], padding=1)
    recovered = 1 + update.statistics["features.1.running_var"] / 0.1
    torch.testing.assert_close(recovered, seen.var(dim=(0, 2, 3), correction=1))
    assert not torch.allclose(recovered, seen.var(dim=(0, 2, 3), correction=0), rtol=1e-3)


@pytest.mark.parametrize("sizes", [(2,), (2, 2)], ids=["one step", "two steps"])
@pytest.mark.parametrize("mode", ["training", "frozen"])
def test_gradient_equals_finite_differences(sizes: tuple[int, ...], mode: Any) -> None:
    state, batches = small_state(), small_batches(*sizes)
    settings = LocalSettings(learning_rate=0.05, batch_norm=mode)
    probe = {name: torch.randn_like(value) for name, value in {**state.weights, **state.statistics}.items()}

    def objective(*images: Tensor) -> Tensor:
        candidates = [Batch(image, batch.labels) for image, batch in zip(images, batches, strict=True)]
        update = local_update(state, candidates, settings)
        return sum((probe[name] * value).sum() for name, value in {**update.weights, **update.statistics}.items())

    inputs = [batch.images.clone().requires_grad_() for batch in batches]
    assert torch.autograd.gradcheck(objective, inputs, eps=1e-6, atol=1e-6, rtol=1e-4)


def test_changes_nothing_that_is_passed_in_and_repeats_itself() -> None:
    state, batches = small_state(), small_batches(2, 2)
    before = copy.deepcopy((dict(state.weights), dict(state.statistics), [batch.images for batch in batches]))
    first, second = local_update(state, batches, SETTINGS), local_update(state, batches, SETTINGS)
    after = dict(state.weights), dict(state.statistics), [batch.images for batch in batches]
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    torch.testing.assert_close(dict(first.weights), dict(second.weights), rtol=0, atol=0)
    assert not any(value.requires_grad for value in {**first.weights, **first.statistics}.values())


def test_same_update_whether_or_not_differentiated() -> None:
    state, batches = small_state(), small_batches(2, 2)
    plain = local_update(state, batches, SETTINGS)
    candidates = [Batch(batch.images.clone().requires_grad_(), batch.labels) for batch in batches]
    tracked = local_update(state, candidates, SETTINGS)
    for part in ("weights", "statistics"):
        for name, value in getattr(plain, part).items():
            torch.testing.assert_close(getattr(tracked, part)[name].detach(), value, rtol=0, atol=1e-15)


def test_what_layers_remember_starts_anew_with_every_step() -> None:
    """Differentiated or not, over several steps; the caller's buffer stays as it is."""

    class Remembers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 2)
            self.passes: Tensor
            self.register_buffer("passes", torch.ones(()))

        def forward(self, images: Tensor) -> Tensor:
            logits = self.linear(images.flatten(1)) * float(self.passes)
            self.passes += 1
            return logits  # type: ignore[no-any-return]

    state, images = ModelState.of(Remembers()), torch.rand(4, 3, 1, 1)
    batches = [Batch(images[k : k + 2], torch.tensor([0, 1])) for k in (0, 2)] * 2
    differentiable = [Batch(batch.images.clone().requires_grad_(), batch.labels) for batch in batches]
    found, expected = (local_update(state, each, SETTINGS).weights for each in (batches, differentiable))
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    assert float(state.module.get_buffer("passes")) == 1


def test_frozen_batch_norm_leaves_running_statistics() -> None:
    update = local_update(small_state(), small_batches(3), LocalSettings(learning_rate=0.1, batch_norm="frozen"))
    assert not any(value.any() for value in update.statistics.values())
    assert any(value.any() for value in update.weights.values())


def soft(batches: Sequence[Batch]) -> list[Batch]:
    """The same images with shares of both classes that require a gradient."""
    generator = torch.Generator().manual_seed(5)
    shares = [torch.rand(len(b.images), 2, generator=generator, dtype=torch.float64).softmax(dim=1) for b in batches]
    return [Batch(batch.images, share.requires_grad_()) for batch, share in zip(batches, shares, strict=True)]


def test_shares_of_one_class_are_its_index() -> None:
    state, batches = small_state(), small_batches(3, 2)
    shares = [Batch(batch.images, one_hot(batch.labels, 2).double()) for batch in batches]
    expected, found = local_update(state, batches, SETTINGS), local_update(state, shares, SETTINGS)
    for name, value in expected.weights.items():
        torch.testing.assert_close(found.weights[name], value, rtol=1e-12, atol=1e-15)


@LOSSES
def test_losses_of_shares_equal_their_formula(loss: Any) -> None:
    """−Σ_c y log p over classes, or the mean over classes of −y log σ − (1 − y) log(1 − σ)."""
    generator = torch.Generator().manual_seed(0)
    logits, labels = (torch.randn(4, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    labels = labels.softmax(dim=1)
    if loss == "cross-entropy":
        expected = -(labels * (logits.exp() / logits.exp().sum(dim=1, keepdim=True)).log()).sum(dim=1).mean()
    else:
        on = 1 / (1 + (-logits).exp())
        expected = -(labels * on.log() + (1 - labels) * (1 - on).log()).mean()
    torch.testing.assert_close(training_loss(logits, labels, LossParams(kind=loss)), expected)


@LOSSES
def test_label_gradient_equals_finite_differences(loss: Any) -> None:
    state, batches = small_state(), soft(small_batches(2, 1))

    def head(*labels: Tensor) -> Tensor:
        given = [Batch(batch.images, label) for batch, label in zip(batches, labels, strict=True)]
        update = local_update(state, given, minimising(loss))
        return torch.cat([update.weights["head.bias"], update.weights["features.0.weight"].flatten()])

    assert torch.autograd.gradcheck(head, [batch.labels for batch in batches], eps=1e-6, atol=1e-6, rtol=1e-4)


def test_one_step_of_binary_cross_entropy_is_its_gradient() -> None:
    """∂loss/∂(head's bias) = Σ over the batch of (σ(z) − y) / (images · classes)."""
    state, (batch,) = small_state(), soft(small_batches(3))
    logits, _ = forward_training(state, batch.images)
    expected = -SETTINGS.learning_rate * (logits.sigmoid() - batch.labels).sum(dim=0) / (3 * 2)
    found = local_update(state, [batch], minimising("binary-cross-entropy"))
    torch.testing.assert_close(found.weights["head.bias"], expected)


def test_schedule_uses_every_image_once_an_epoch() -> None:
    schedule = schedule_batches(10, 4, 3, torch.Generator().manual_seed(0))
    assert [len(step) for step in schedule] == [4, 4, 2] * 3
    for epoch in range(3):
        assert sorted(chain(*schedule[3 * epoch : 3 * epoch + 3])) == list(range(10))
    assert schedule[:3] != schedule[3:6]


@pytest.mark.parametrize(("images", "batch_size", "epochs"), [(1, 1, 1), (5, 2, 3), (4, 4, 2), (3, 8, 1)])
def test_assumed_schedule_is_like_the_clients_but_in_turn(images: int, batch_size: int, epochs: int) -> None:
    assumed = assume_schedule(images, batch_size, epochs)
    true = schedule_batches(images, batch_size, epochs, torch.Generator().manual_seed(0))
    assert [len(step) for step in assumed] == [len(step) for step in true]
    assert list(chain(*assumed)) == list(range(images)) * epochs


def test_batches_follow_the_schedule() -> None:
    images, labels = torch.arange(4.0).view(4, 1, 1, 1), torch.tensor([0, 1, 0, 1])
    first, second = make_batches(images, labels, [[2, 0], [3, 1]])
    assert first.images.flatten().tolist() == [2, 0]
    assert second.labels.tolist() == [1, 1]
    (whole,) = make_batches(images, labels, [[3, 1, 2, 0]])
    assert whole.images.flatten().tolist() == [3, 1, 2, 0]
