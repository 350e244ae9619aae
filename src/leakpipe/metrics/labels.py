"""The share of a client's labels that an attack had right."""

from collections import Counter

import numpy as np

from leakpipe.errors import LeakpipeError


def label_accuracy(found: np.ndarray, true: np.ndarray) -> float:
    """Share of a client's labels that an attack worked with and that are right, whatever their order.

    Args:
        found: Class indices, shape (images,), or 0 or 1 for each class, shape (images, classes).
        true: Same shape.

    Returns:
        In [0, 1]: the overlap of the two multisets over the number of images; 1 where labels were granted. Of several
        labels of an image, all have to be right.
    """
    if found.shape != true.shape:
        raise LeakpipeError(f"labels found {found.shape} and true {true.shape} must have one shape")
    sets = (Counter(map(tuple, labels.reshape(len(labels), -1).tolist())) for labels in (found, true))
    first, second = sets
    return sum((first & second).values()) / len(true)
