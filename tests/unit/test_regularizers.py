"""Terms for how candidates should look: each against naive loops, closed forms and finite differences."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from leakpipe.attacks.terms.images import TOTAL_VARIATIONS, group_distance, l2_norm, prior_distance


def random_images(channels: int, *, seed: int = 0) -> torch.Tensor:
    return torch.rand(2, channels, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def naive_anisotropic(images: np.ndarray) -> float:
    vertical, horizontal = [], []
    for image in images:
        for channel in image:
            height, width = channel.shape
            vertical += [abs(channel[y + 1, x] - channel[y, x]) for y in range(height - 1) for x in range(width)]
            horizontal += [abs(channel[y, x + 1] - channel[y, x]) for y in range(height) for x in range(width - 1)]
    return float(np.mean(vertical) + np.mean(horizontal))


def naive_isotropic(images: np.ndarray) -> float:
    lengths = []
    for image in images:
        for channel in image:
            for y in range(channel.shape[0] - 1):
                for x in range(channel.shape[1] - 1):
                    down, right = channel[y + 1, x] - channel[y, x], channel[y, x + 1] - channel[y, x]
                    lengths.append(math.hypot(down, right))
    return float(np.mean(lengths))


def naive_double_opponents(images: np.ndarray) -> float:
    if images.shape[1] == 1:
        return naive_isotropic(images) / 2  # as many differences as colours, all 0
    red, green, blue = images[:, 0], images[:, 1], images[:, 2]
    opponents = np.stack([red - green, green - blue, blue - red], axis=1)
    return naive_isotropic(np.concatenate([images, opponents], axis=1))


NAIVE: dict[str, Callable[[np.ndarray], float]] = {
    "anisotropic": naive_anisotropic,
    "isotropic": naive_isotropic,
    "double-opponents": naive_double_opponents,
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", TOTAL_VARIATIONS)
def test_total_variation_equals_naive_loops(name: str, channels: int) -> None:
    images = random_images(channels)
    # isotropic lengths are smoothed by 1e-6 at most
    assert TOTAL_VARIATIONS[name](images).item() == pytest.approx(NAIVE[name](images.numpy()), abs=3e-6)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", TOTAL_VARIATIONS)
def test_total_variation_of_constant_and_ramp(name: str, channels: int) -> None:
    constant = torch.full((1, channels, 4, 4), 0.3, dtype=torch.float64)
    assert TOTAL_VARIATIONS[name](constant).item() == pytest.approx(0, abs=1e-15)
    ramp = torch.arange(4.0, dtype=torch.float64).expand(2, channels, 4, 4)  # slope 1 to the right, 0 downwards
    assert TOTAL_VARIATIONS[name](ramp).item() == pytest.approx(0.5 if name == "double-opponents" else 1, abs=3e-6)


def test_total_variation_of_a_slanted_ramp_tells_the_kinds_apart() -> None:
    """Slopes 3 and 4: their sum, or their length."""
    ramp = 3 * torch.arange(5.0)[:, None] + 4 * torch.arange(5.0)
    found = {name: term(ramp.expand(1, 1, 5, 5).double()).item() for name, term in TOTAL_VARIATIONS.items()}
    assert found == pytest.approx({"anisotropic": 7, "isotropic": 5, "double-opponents": 2.5}, abs=3e-6)


def test_double_opponents_punish_an_edge_of_one_colour_more() -> None:
    """A ramp of slope 1 in red only: of six channels, red, red − green and blue − red have it."""
    ramp = torch.arange(4.0, dtype=torch.float64).expand(1, 1, 4, 4)
    red = torch.cat([ramp, 0 * ramp, 0 * ramp], dim=1)
    assert TOTAL_VARIATIONS["isotropic"](red).item() == pytest.approx(1 / 3, abs=3e-6)
    assert TOTAL_VARIATIONS["double-opponents"](red).item() == pytest.approx(1 / 2, abs=3e-6)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", TOTAL_VARIATIONS)
def test_total_variation_gradient(name: str, channels: int) -> None:
    assert gradcheck(TOTAL_VARIATIONS[name], random_images(channels).requires_grad_())


@pytest.mark.parametrize("name", TOTAL_VARIATIONS)
def test_total_variation_of_a_constant_has_a_finite_gradient(name: str) -> None:
    images = torch.full((1, 3, 4, 4), 0.3).requires_grad_()
    (gradient,) = torch.autograd.grad(TOTAL_VARIATIONS[name](images), images)
    assert gradient.isfinite().all()


def test_l2_norm_is_the_mean_over_images() -> None:
    images = random_images(3)
    expected = np.mean([np.linalg.norm(image.numpy().ravel()) for image in images])
    assert l2_norm(images).item() == pytest.approx(expected, rel=1e-12)
    assert l2_norm(torch.full((5, 1, 4, 4), 0.25)).item() == pytest.approx(1)  # √(16 · 0.25²), whatever the number
    assert gradcheck(l2_norm, images.requires_grad_())
    zero = torch.zeros(2, 1, 3, 3, requires_grad=True)
    assert torch.autograd.grad(l2_norm(zero), zero)[0].isfinite().all()


@pytest.mark.parametrize("distance", [prior_distance, group_distance])
def test_mean_squared_distances(distance: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
    images, other = random_images(3), random_images(3, seed=1)
    expected = np.mean([(x - y) ** 2 for x, y in zip(images.numpy().ravel(), other.numpy().ravel(), strict=True)])
    assert distance(images, other).item() == pytest.approx(expected, rel=1e-12)
    assert distance(images, images).item() == 0
    assert distance(images, images + 0.5).item() == pytest.approx(0.25)
    assert gradcheck(lambda candidates: distance(candidates, other), images.requires_grad_())
