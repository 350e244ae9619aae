"""How often a client changes its weights in a round. Importing this needs no torch."""

from math import ceil


def count_local_steps(images: int, batch_size: int, epochs: int) -> int:
    """Batches that a client trains on in one round; the last of an epoch may be smaller."""
    return ceil(images / batch_size) * epochs
