"""Which reconstruction belongs to which original."""

import numpy as np
from scipy.optimize import linear_sum_assignment


def match_to_originals(similarity: np.ndarray) -> np.ndarray:
    """Assign each original its own reconstruction so that the similarities sum to the most.

    Args:
        similarity: Shape (originals, reconstructions), as many of both; larger is more alike.

    Returns:
        int64 of shape (originals,): index of each original's reconstruction, no index twice.
    """
    _, reconstructions = linear_sum_assignment(similarity, maximize=True)
    return np.asarray(reconstructions, dtype=np.int64)
