"""DP-SGD against a naive loop over images, Opacus, finite differences, and what its noise must be."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from leakpipe.client.batches import Batch
from leakpipe.client.dp_sgd import clip_each, private_gradients
from leakpipe.client.local_update import LocalSettings, local_update
from leakpipe.errors import LeakpipeError
from leakpipe.models.state import ModelState
from leakpipe.params.privacy import DpSgdParams
from tests.conftest import small_batches, small_state


class GroupNet(nn.Module):
    """A small network whose normalisation stays within an image."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.GroupNorm(2, 4)
        self.head = nn.Linear(4 * 8 * 8, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.tanh(self.norm(self.first(images))).flatten(1))


def group_state(dtype: torch.dtype = torch.float64) -> ModelState:
    torch.manual_seed(0)
    return ModelState.of(GroupNet().to(dtype))


def private(clip_norm: float, noise_multiplier: float) -> DpSgdParams:
    return DpSgdParams(kind="dp-sgd", clip_norm=clip_norm, noise_multiplier=noise_multiplier)


def settings(clip_norm: float, noise_multiplier: float = 0.0) -> LocalSettings:
    return LocalSettings(learning_rate=0.3, dp_sgd=private(clip_norm, noise_multiplier))


def naive_gradients(state: ModelState, weights: dict[str, Tensor], batch: Batch) -> list[dict[str, Tensor]]:
    """The gradient of every image, one by one, with plain autograd."""
    found = []
    for image, label in zip(batch.images, batch.labels, strict=True):
        leaves = {name: value.detach().clone().requires_grad_() for name, value in weights.items()}
        loss = cross_entropy(functional_call(state.module, leaves, (image[None],)), label[None])
        found.append(dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True)))
    return found


def norm_of(gradients: dict[str, Tensor]) -> float:
    return float(np.linalg.norm(np.concatenate([value.detach().numpy().ravel() for value in gradients.values()])))


def test_training_equals_a_naive_loop_over_images() -> None:
    state, batches = group_state(), small_batches(3, 2, 1)
    first = naive_gradients(state, dict(state.weights), batches[0])
    clip_norm = sorted(map(norm_of, first))[1]  # one image is clipped, one not
    weights = dict(state.weights)
    for batch in batches:
        summed = {name: torch.zeros_like(value) for name, value in weights.items()}
        for gradient in naive_gradients(state, weights, batch):
            factor = min(1.0, clip_norm / norm_of(gradient))
            summed = {name: summed[name] + factor * gradient[name] for name in summed}
        weights = {name: value - 0.3 * summed[name] / len(batch.images) for name, value in weights.items()}
    update = local_update(state, batches, settings(clip_norm))
    for name, before in state.weights.items():
        torch.testing.assert_close(update.weights[name], weights[name] - before, rtol=1e-10, atol=1e-13)
    assert update.steps == 3
    assert not update.statistics


def test_without_clipping_or_noise_it_is_plain_training() -> None:
    state, batches = group_state(), small_batches(3, 2)
    plain = local_update(state, batches, LocalSettings(learning_rate=0.3))
    private = local_update(state, batches, settings(1e9))
    for name in state.weights:
        torch.testing.assert_close(private.weights[name], plain.weights[name], rtol=1e-10, atol=1e-13)


def test_clipping_equals_opacus() -> None:
    opacus = pytest.importorskip("opacus")
    state, (batch,) = group_state(), small_batches(5)
    clip_norm = 0.8 * norm_of(naive_gradients(state, dict(state.weights), batch)[0])
    module = GroupNet().double()
    module.load_state_dict(state.weights)
    sampled = opacus.GradSampleModule(module)
    optimizer = opacus.optimizers.DPOptimizer(
        torch.optim.SGD(sampled.parameters(), lr=0.3),
        noise_multiplier=0.0,
        max_grad_norm=clip_norm,
        expected_batch_size=5,
    )
    cross_entropy(sampled(batch.images), batch.labels).backward()
    optimizer.step()
    update = local_update(state, [batch], settings(clip_norm))
    trained = dict(module.named_parameters())
    for name, before in state.weights.items():  # Opacus adds 1e-6 to each norm before it divides
        torch.testing.assert_close(update.weights[name], trained[name].detach() - before, rtol=2e-5, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_image_has_more_than_the_clip_norm_and_small_ones_stay(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    each = {
        "a": torch.randn(6, 40, 3, generator=generator).to(dtype),
        "b": torch.randn(6, generator=generator).to(dtype),
    }
    scales = torch.tensor([0.0, 1e-3, 0.05, 1.0, 1e3, 1e6], dtype=dtype)
    each = {name: value * scales.reshape(-1, *[1] * (value.ndim - 1)) for name, value in each.items()}
    clipped = clip_each(each, clip_norm=1.5)
    for image in range(6):
        before = norm_of({name: value[image] for name, value in each.items()})
        after = norm_of({name: value[image] for name, value in clipped.items()})
        assert after == pytest.approx(min(before, 1.5), rel=1e-6)
        if before <= 1.5:
            for name in each:
                torch.testing.assert_close(clipped[name][image], each[name][image], rtol=0, atol=0)


def test_replacing_one_image_moves_the_sum_by_at_most_twice_the_clip_norm() -> None:
    state = group_state()
    for seed in range(5):
        (batch,) = small_batches(4, seed=seed)
        (other,) = small_batches(4, seed=seed + 100)
        replaced = Batch(
            torch.cat([other.images[:1] * 50, batch.images[1:]]), torch.cat([1 - batch.labels[:1], batch.labels[1:]])
        )
        updates = [local_update(state, [each], settings(0.01)) for each in (batch, replaced)]
        moved = {name: (updates[0].weights[name] - updates[1].weights[name]) * 4 / 0.3 for name in state.weights}
        assert 0 < norm_of(moved) <= 2 * 0.01 * (1 + 1e-9)


def test_noise_has_the_stated_spread_and_comes_from_the_generator() -> None:
    weights = {"a": torch.zeros(400, 500, dtype=torch.float64)}
    images, labels = torch.ones(4, 1, 1, 1, dtype=torch.float64), torch.zeros(4, dtype=torch.long)

    def drawn(seed: int) -> Tensor:
        def loss(given: Any, image: Tensor, label: Tensor) -> Tensor:  # noqa: ARG001
            return 0 * given["a"].sum() + 0 * image.sum()

        generator = torch.Generator().manual_seed(seed)
        return private_gradients(loss, weights, images, labels, private(0.5, 3.0), generator=generator)["a"]

    noise = drawn(0)
    assert noise.std().item() == pytest.approx(3.0 * 0.5 / 4, rel=0.01)
    assert abs(noise.mean().item()) < 0.005
    assert torch.equal(noise, drawn(0))
    assert not torch.equal(noise, drawn(1))


def test_noise_without_a_generator_and_batch_normalisation_are_refused() -> None:
    with pytest.raises(LeakpipeError, match="needs a generator"):
        local_update(group_state(), small_batches(2), settings(1.0, 1.0))
    with pytest.raises(LeakpipeError, match=r"batch normalisation.*model\.normalization: group"):
        local_update(small_state(), small_batches(2), settings(1.0))


def test_a_simulated_step_can_be_differentiated() -> None:
    state, batches = group_state(), small_batches(2, 1)
    target = {name: torch.randn_like(value) for name, value in state.weights.items()}
    clip_norm = sorted(map(norm_of, naive_gradients(state, dict(state.weights), batches[0])))[0] * 1.01
    given = settings(clip_norm)

    def matched(images: Tensor) -> Tensor:
        update = local_update(state, [Batch(images, batches[0].labels), batches[1]], given)
        return sum((update.weights[name] * target[name]).sum() for name in target)

    images = batches[0].images.clone().requires_grad_()
    assert torch.autograd.gradcheck(matched, [images], eps=1e-6, atol=1e-7, rtol=1e-4, fast_mode=True)
