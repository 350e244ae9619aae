"""The assignment of reconstructions to originals."""

from collections.abc import Callable

import numpy as np
from scipy.optimize import linear_sum_assignment

from leakpipe.registry import Registry

Assignment = Callable[[np.ndarray], np.ndarray]


def match_to_originals(similarity: np.ndarray) -> np.ndarray:
    """Assign each original its own reconstruction so that the similarities sum to the most.

    Args:
        similarity: Shape (originals, reconstructions), at least as many of these; larger is more alike.

    Returns:
        int64 of shape (originals,): index of each original's reconstruction, no index twice.
    """
    _, reconstructions = linear_sum_assignment(similarity, maximize=True)
    return np.asarray(reconstructions, dtype=np.int64)


def take_most_alike(similarity: np.ndarray) -> np.ndarray:
    """Assign each original the reconstruction that is most like it, as the tool of Hatamizadeh 2023 does.

    One reconstruction may be counted for many originals, so an attack that finds a single image of a batch, or an
    average of all, looks better than under `match_to_originals`.

    Args:
        similarity: Shape (originals, reconstructions); larger is more alike.

    Returns:
        int64 of shape (originals,): index of each original's reconstruction, the first of equals.
    """
    return np.asarray(similarity.argmax(axis=1), dtype=np.int64)


ASSIGNMENTS: Registry[Assignment] = Registry("assignment")
ASSIGNMENTS.add("optimal", match_to_originals)
ASSIGNMENTS.add("per-image-maximum", take_most_alike)
