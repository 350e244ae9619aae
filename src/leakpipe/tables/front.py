"""The privacy–utility front: which defences no other one beats."""

from collections.abc import Sequence


def find_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which points no other beats: none has at least the accuracy and at most the leakage, and differs.

    Args:
        points: Accuracy and leakage of each.

    Returns:
        Indices, ascending.
    """
    return [
        index
        for index, (accuracy, leak) in enumerate(points)
        if not any(other != (accuracy, leak) and other[0] >= accuracy and other[1] <= leak for other in points)
    ]
