"""The share of labels that an attack had right, whatever their order."""

from itertools import permutations

import numpy as np
import pytest

from leakpipe.errors import LeakpipeError
from leakpipe.metrics.labels import label_accuracy

CASES = [
    ([1, 2, 3], [3, 1, 2], 1.0),
    ([0, 0, 1, 1], [0, 1, 1, 1], 0.75),
    ([0, 0, 0], [0, 1, 2], 1 / 3),
    ([5], [4], 0.0),
    ([0, 1], [0, 1], 1.0),
]


@pytest.mark.parametrize(("found", "true", "expected"), CASES)
def test_is_the_overlap_of_the_two_lists(found: list[int], true: list[int], expected: float) -> None:
    assert label_accuracy(np.array(found), np.array(true)) == pytest.approx(expected)
    assert label_accuracy(np.array(true), np.array(found)) == pytest.approx(expected)


def test_equals_the_best_of_all_assignments() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        found, true = random.integers(3, size=(2, 5))
        best = max(np.mean([f == t for f, t in zip(order, true, strict=True)]) for order in permutations(found))
        assert label_accuracy(found, true) == pytest.approx(best)


@pytest.mark.parametrize(("found", "true"), [([1], [1, 2]), ([[1]], [1])])
def test_lists_of_other_lengths_or_kinds_are_refused(found: list, true: list) -> None:
    with pytest.raises(LeakpipeError, match="must have one shape"):
        label_accuracy(np.array(found), np.array(true))
