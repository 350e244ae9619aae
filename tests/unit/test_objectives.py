"""Distances of updates against naive numpy, closed forms and finite differences."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from leakpipe.attacks.distances import DISTANCES, WITHOUT_DIFFERENCE, compare_tensors, squared_lengths

Tensors = dict[str, torch.Tensor]
Arrays = dict[str, np.ndarray]


def random_tensors(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(4, size, generator=generator, dtype=torch.float64) for name, size in (("a", 3), ("b", 7))}


def distance_of(name: str, mine: Tensors, theirs: Tensors) -> torch.Tensor:
    products = compare_tensors(mine, theirs, differs=name not in WITHOUT_DIFFERENCE)
    return DISTANCES[name](products, squared_lengths(theirs))


def naive_cosine(a: np.ndarray, b: np.ndarray) -> float:
    dot, mine, theirs = 0.0, 0.0, 0.0
    for x, y in zip(a.ravel(), b.ravel(), strict=True):
        dot, mine, theirs = dot + x * y, mine + x * x, theirs + y * y
    return 1 - dot / (mine * theirs) ** 0.5


def joined(tensors: Arrays) -> np.ndarray:
    return np.concatenate([value.ravel() for value in tensors.values()])


NAIVE: dict[str, Callable[[Arrays, Arrays], float]] = {
    "cosine": lambda a, b: naive_cosine(joined(a), joined(b)),
    "layer-cosine": lambda a, b: float(np.mean([naive_cosine(a[name], b[name]) for name in b])),
    "l2": lambda a, b: float(((joined(a) - joined(b)) ** 2).sum()),
    "layer-norms": lambda a, b: float(sum(np.linalg.norm(a[name] - b[name]) for name in b)),
    "relative-l2": lambda a, b: float(np.mean([((a[n] - b[n]) ** 2).sum() / (b[n] ** 2).sum() for n in b])),
}


@pytest.mark.parametrize("name", DISTANCES)
def test_equals_naive_numpy(name: str) -> None:
    mine, theirs = random_tensors(0), random_tensors(1)
    expected = NAIVE[name]({n: v.numpy() for n, v in mine.items()}, {n: v.numpy() for n, v in theirs.items()})
    assert distance_of(name, mine, theirs).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", DISTANCES)
def test_the_order_of_names_does_not_matter(name: str) -> None:
    mine, theirs = random_tensors(0), random_tensors(1)
    shuffled = {key: mine[key] for key in reversed(mine)}
    torch.testing.assert_close(distance_of(name, shuffled, theirs), distance_of(name, mine, theirs))


# Closed forms, for a candidate that is c times the observed values x of two tensors:
# direction 0 for c > 0 and 2 for c < 0; distance |c − 1|·‖x‖.
@pytest.mark.parametrize("factor", [3.0, 0.5, -1.0])
def test_of_a_multiple_has_a_closed_form(factor: float) -> None:
    theirs = random_tensors(0)
    mine = {name: factor * value for name, value in theirs.items()}
    norms = [np.linalg.norm(value.numpy()) for value in theirs.values()]
    expected = {
        "cosine": 0 if factor > 0 else 2,
        "layer-cosine": 0 if factor > 0 else 2,
        "l2": (factor - 1) ** 2 * sum(norm**2 for norm in norms),
        "layer-norms": abs(factor - 1) * sum(norms),
        "relative-l2": (factor - 1) ** 2,
    }
    for name in DISTANCES:
        assert distance_of(name, mine, theirs).item() == pytest.approx(expected[name], rel=1e-12, abs=1e-14), name


@pytest.mark.parametrize("name", DISTANCES)
def test_is_zero_at_the_observed_update(name: str) -> None:
    theirs = random_tensors(0)
    assert abs(distance_of(name, theirs, theirs).item()) < 3e-6  # layer-norms: √1e-12 a tensor


@pytest.mark.parametrize("name", DISTANCES)
def test_gradient_equals_finite_differences(name: str) -> None:
    theirs = random_tensors(1)
    mine = [value.requires_grad_() for value in random_tensors(0).values()]
    assert gradcheck(lambda a, b: distance_of(name, {"a": a, "b": b}, theirs), mine)


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("at", ["zero", "observed"])
def test_gradient_stays_finite_where_a_norm_is_zero(name: str, at: str) -> None:
    theirs = random_tensors(1)
    mine = {k: (value if at == "observed" else torch.zeros_like(value)).clone() for k, value in theirs.items()}
    inputs = [value.requires_grad_() for value in mine.values()]
    distance = distance_of(name, mine, theirs)
    assert distance.isfinite()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(distance, inputs))


def test_a_zero_candidate_has_no_direction() -> None:
    zero = {"w": torch.zeros(3)}
    assert distance_of("cosine", zero, {"w": torch.ones(3)}).item() == 1
    assert distance_of("layer-cosine", zero, {"w": torch.ones(3)}).item() == 1


@pytest.mark.parametrize("name", ["layer-cosine", "relative-l2"])
def test_means_over_tensors_leave_out_those_observed_as_zero(name: str) -> None:
    mine, theirs = random_tensors(0), random_tensors(1)
    expected = distance_of(name, {"a": mine["a"]}, {"a": theirs["a"]})
    theirs["b"] = torch.zeros_like(theirs["b"])
    mine["b"].requires_grad_()
    distance = distance_of(name, mine, theirs)
    torch.testing.assert_close(distance.detach(), expected)
    assert not torch.autograd.grad(distance, mine["b"])[0].any()  # nothing of tensor b is in it


def test_cosine_distance_of_long_vectors_keeps_its_digits() -> None:
    """Ten million equal float32 values against themselves: a float32 sum would be off by more than 1e-4."""
    value = {"w": torch.full((10_000_000,), 0.1)}
    assert abs(distance_of("cosine", value, value).item()) < 1e-12


@pytest.mark.parametrize("name", DISTANCES)
def test_float32_updates_are_compared_in_float64(name: str) -> None:
    mine, theirs = ({n: v.float() for n, v in random_tensors(seed).items()} for seed in (0, 1))
    distance = distance_of(name, mine, theirs)
    assert distance.dtype == torch.float64
    exact = distance_of(name, {n: v.double() for n, v in mine.items()}, {n: v.double() for n, v in theirs.items()})
    assert distance.item() == pytest.approx(exact.item(), rel=1e-14)
