"""`local_update` against a plain torch training loop and against finite differences."""

import copy
from itertools import chain

import pytest
import torch
from torch import nn

from leakpipe.client.batches import Batch, make_batches, schedule_batches
from leakpipe.client.local_update import LocalSettings, local_update
from leakpipe.client.update import ClientUpdate
from leakpipe.models.preprocessing import normalize_input
from leakpipe.models.state import ModelState
from tests.conftest import SETTINGS, small_batches, small_state


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

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(normalize_input(images)).flatten(1))


def train_with_torch(state: ModelState, batches: list[Batch], settings: LocalSettings) -> tuple[dict, dict]:
    """Train with torch.optim.SGD and torch's batch normalisation; return ΔW and new running statistics."""
    net = TorchNet().to(next(iter(state.weights.values())).dtype)
    net.load_state_dict({**state.weights, **state.statistics}, strict=False)
    net.train()
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = settings.batch_norm_momentum
    optimizer = torch.optim.SGD(net.parameters(), lr=settings.learning_rate)
    for batch in batches:
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(batch.images), batch.labels).backward()
        optimizer.step()
    trained = net.state_dict()
    return (
        {name: trained[name] - before for name, before in state.weights.items()},
        {name: trained[name] for name in state.statistics},
    )


SIZES = {"one image": (1,), "one batch": (4,), "two": (3, 3), "uneven": (4, 2, 1), "three epochs": (2, 2) * 3}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_equals_a_plain_torch_loop(sizes: tuple[int, ...]) -> None:
    check_against_torch(sizes, torch.float64, 1e-12)


@pytest.mark.parametrize("sizes", [(1,), (4,), (3, 3)], ids=["one image", "one batch", "two"])
def test_equals_a_plain_torch_loop_in_float32(sizes: tuple[int, ...]) -> None:
    """Few steps only: ReLU makes long float32 trajectories drift apart by rounding alone."""
    check_against_torch(sizes, torch.float32, 2e-6)


def check_against_torch(sizes: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    state, batches = small_state(dtype=dtype), small_batches(*sizes, dtype=dtype)
    update = local_update(state, batches, SETTINGS)
    deltas, running = train_with_torch(state, batches, SETTINGS)
    assert update.steps == len(sizes)
    for name, expected in deltas.items():
        torch.testing.assert_close(update.weights[name], expected, rtol=0, atol=tolerance)
    for name, before in state.statistics.items():
        torch.testing.assert_close(before + update.statistics[name], running[name], rtol=0, atol=tolerance)


def test_running_variance_is_unbiased() -> None:
    """With 64 values per channel biased and unbiased differ by 1.6 %: told apart far above rounding."""
    state, (batch,) = small_state(), small_batches(1)
    update = local_update(state, [batch], SETTINGS)
    seen = nn.functional.conv2d(normalize_input(batch.images), state.weights["features.0.weight"], padding=1)
    recovered = 1 + update.statistics["features.1.running_var"] / 0.1
    torch.testing.assert_close(recovered, seen.var(dim=(0, 2, 3), correction=1))
    assert not torch.allclose(recovered, seen.var(dim=(0, 2, 3), correction=0), rtol=1e-3)


@pytest.mark.parametrize("sizes", [(2,), (2, 2)], ids=["one step", "two steps"])
@pytest.mark.parametrize("mode", ["training", "frozen"])
def test_gradient_equals_finite_differences(sizes: tuple[int, ...], mode: str) -> None:
    state, batches = small_state(), small_batches(*sizes)
    settings = LocalSettings(learning_rate=0.05, batch_norm=mode)  # type: ignore[arg-type]
    probe = {name: torch.randn_like(value) for name, value in {**state.weights, **state.statistics}.items()}

    def objective(*images: torch.Tensor) -> torch.Tensor:
        candidates = [Batch(image, batch.labels) for image, batch in zip(images, batches, strict=True)]
        update = local_update(state, candidates, settings)
        return sum((probe[name] * value).sum() for name, value in {**update.weights, **update.statistics}.items())

    inputs = [batch.images.clone().requires_grad_() for batch in batches]
    assert torch.autograd.gradcheck(objective, inputs, eps=1e-6, atol=1e-6, rtol=1e-4)


def test_changes_nothing_that_is_passed_in() -> None:
    state, batches = small_state(), small_batches(2, 2)
    before = copy.deepcopy((dict(state.weights), dict(state.statistics), [batch.images for batch in batches]))
    first, second = local_update(state, batches, SETTINGS), local_update(state, batches, SETTINGS)
    torch.testing.assert_close(
        (dict(state.weights), dict(state.statistics), [batch.images for batch in batches]), before, rtol=0, atol=0
    )
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


def test_frozen_batch_norm_leaves_running_statistics() -> None:
    update = local_update(small_state(), small_batches(3), LocalSettings(learning_rate=0.1, batch_norm="frozen"))
    assert isinstance(update, ClientUpdate)
    assert all(not value.any() for value in update.statistics.values())
    assert any(value.any() for value in update.weights.values())


def test_schedule_uses_every_image_once_an_epoch() -> None:
    schedule = schedule_batches(10, 4, 3, torch.Generator().manual_seed(0))
    assert [len(step) for step in schedule] == [4, 4, 2] * 3
    for epoch in range(3):
        assert sorted(chain(*schedule[3 * epoch : 3 * epoch + 3])) == list(range(10))
    assert schedule[:3] != schedule[3:6]


def test_batches_follow_the_schedule() -> None:
    images, labels = torch.arange(4.0).view(4, 1, 1, 1), torch.tensor([0, 1, 0, 1])
    first, second = make_batches(images, labels, [[2, 0], [3, 1]])
    assert first.images.flatten().tolist() == [2, 0]
    assert second.labels.tolist() == [1, 1]
    (whole,) = make_batches(images, labels, [[3, 1, 2, 0]])
    assert whole.images.flatten().tolist() == [3, 1, 2, 0]
