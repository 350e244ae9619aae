"""Image identifiability precision (IIP): whether a reconstruction says WHICH training image it came from."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from leakpipe.errors import LeakpipeError

TIE = 1e-6  # of the largest distance: float32 embeddings closer than this count as equally near


def rank_true(queries: np.ndarray, candidates: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts how many candidates are nearer to each query than its true one, and how many are as near.

    Args:
        queries: Embeddings of shape (queries, features).
        candidates: Shape (candidates, features).
        true: Index of each query's own candidate, shape (queries,).

    Returns:
        Two integer arrays of shape (queries,): candidates that are strictly nearer in Euclidean distance (≥ 0), and
        those at the same distance, the true one included (≥ 1). Distances are the same where they differ by no more
        than 1e-6 of the query's largest one.

    Raises:
        LeakpipeError: Where shapes differ, an index is out of range, or an embedding is not finite.
    """
    if queries.ndim != 2 or candidates.ndim != 2 or queries.shape[1] != candidates.shape[1]:
        raise LeakpipeError(
            f"embeddings of queries {queries.shape} and candidates {candidates.shape} must be two tables of one width"
        )
    if true.shape != queries.shape[:1] or not ((true >= 0) & (true < len(candidates))).all():
        raise LeakpipeError(f"true {true.tolist()}: expected an index below {len(candidates)} for each query")
    if not (np.isfinite(queries).all() and np.isfinite(candidates).all()):
        raise LeakpipeError("an embedding holds a value that is not finite")
    distances = _distances(queries.astype(np.float64), candidates.astype(np.float64))
    further = distances - distances[np.arange(len(true)), true][:, None]
    slack = TIE * distances.max(axis=1, keepdims=True)
    return (further < -slack).sum(axis=1), (np.abs(further) <= slack).sum(axis=1)


def expected_hits(nearer: np.ndarray, tied: np.ndarray, k: int) -> np.ndarray:
    """Probability that the true candidate is among the k nearest, ties being broken at random.

    Args:
        nearer: Candidates that are nearer than the true one.
        tied: Candidates as near as it, itself included.
        k: How many nearest count, ≥ 1.

    Returns:
        In [0, 1]; 0 or 1 without ties. If all N candidates are tied it is k / N, the chance level.
    """
    return np.asarray(np.clip((k - nearer) / tied, 0.0, 1.0))


def identify(
    reconstructions: np.ndarray, priors: np.ndarray, candidates: np.ndarray, *, true: np.ndarray, top: Sequence[int]
) -> list[dict[str, Any]]:
    """Look every reconstruction of one client up among all clients' training images.

    IIP (Yin 2021; Hatamizadeh 2023) is the mean of `top1`. An attack that knows nothing hits with probability
    k / candidates, if what it is to hit was fixed before. It is not: a reconstruction counts as that of the client's
    image it is most like. So chance lies between `chance` and `chance_client`, the probability of hitting any of the
    client's images. What one identifies without an attack, by the prior image, is given beside.

    Args:
        reconstructions: Embeddings, shape (images, features), one per training image of the client.
        priors: Embedding of the prior image of each, same shape.
        candidates: Embeddings of all clients' training images, shape (candidates, features).
        true: Index of each one's true image among the candidates, shape (images,).
        top: Values of k.

    Returns:
        Rows with `rank` and `rank_prior` (1 is best; the mean over ties), `top<k>` and `top<k>_prior`
        (`expected_hits`), `candidates`, and for k = 1 `chance` and `chance_client`.
    """
    found, prior = rank_true(reconstructions, candidates, true), rank_true(priors, candidates, true)
    hits = {
        f"top{k}{suffix}": expected_hits(*ranks, k) for k in top for suffix, ranks in (("", found), ("_prior", prior))
    }
    columns = {"rank": _mean_rank(*found), "rank_prior": _mean_rank(*prior), **hits}
    count = len(candidates)
    shared = {"candidates": count, "chance": 1 / count, "chance_client": len(true) / count}
    return [
        {**{name: float(values[index]) for name, values in columns.items()}, **shared} for index in range(len(true))
    ]


def _distances(queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Euclidean distance of each query (rows) to each candidate; scipy's `cdist` takes longer to import than to run."""
    return np.stack([np.linalg.norm(candidates - query, axis=1) for query in queries])


def _mean_rank(nearer: np.ndarray, tied: np.ndarray) -> np.ndarray:
    return nearer + (tied + 1) / 2
