"""How many of a client's labels an attack had right."""

from collections import Counter

import numpy as np

from leakpipe.errors import LeakpipeError


def label_accuracy(found: np.ndarray, true: np.ndarray) -> float:
    """Share of a client's labels that an attack worked with and that are right, whatever their order.

    Args:
        found: Class indices, shape (images,).
        true: Same shape.

    Returns:
        In [0, 1]: the overlap of the two multisets over the number of images; 1 where labels were granted.
    """
    if found.shape != true.shape or found.ndim != 1:
        raise LeakpipeError(f"labels found {found.shape} and true {true.shape} must be two lists of one length")
    return sum((Counter(found.tolist()) & Counter(true.tolist())).values()) / len(true)
