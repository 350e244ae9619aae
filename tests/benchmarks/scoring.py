"""Times scoring: `python -m tests.benchmarks.scoring` prints pairs per second; nothing is asserted.

Every measure of the leakage table but LPIPS on made-up pairs, each a client of its own, made a few at a time.
"""

import argparse
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat

import numpy as np

from leakpipe.metrics.score import score_images

BATCH = 32  # pairs in memory at once, per process


def score_made_up_pairs(pairs: int, seed: int, shape: tuple[int, int, int]) -> float:
    """Score `pairs` noisy copies of random images; the sum of their SSIM."""
    rng = np.random.default_rng(seed)
    prior, total = np.full((1, *shape), 0.5, np.float32), 0.0
    for done in range(0, pairs, BATCH):
        originals, noise = rng.random((2, min(BATCH, pairs - done), 1, *shape), dtype=np.float32)
        for original, rebuilt in zip(originals, 0.8 * originals + 0.2 * noise, strict=True):
            (row,) = score_images(rebuilt, original, prior)
            total += row["ssim"]
    return total


def main() -> None:
    """Share the pairs out over processes, as Snakemake does over jobs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=224, help="height and width in pixels")
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    shares = [len(range(process, options.pairs, options.processes)) for process in range(options.processes)]
    shape = (options.channels, options.size, options.size)
    start = time.perf_counter()
    with ProcessPoolExecutor(options.processes) as pool:
        total = sum(pool.map(score_made_up_pairs, shares, range(options.processes), repeat(shape)))
    seconds = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)  # what does not depend on who else uses the machine
    print(
        f"{options.pairs} pairs of {shape}, {options.processes} processes: {seconds:.1f} s, "
        f"{options.pairs / seconds:.0f} pairs/s, {used.ru_utime + used.ru_stime:.1f} s of CPU time, "
        f"mean SSIM {total / options.pairs:.4f}"
    )


if __name__ == "__main__":
    main()
