"""Measures the machine's limits: a large matrix product, and a large copy."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch


@dataclass(frozen=True)
class Peaks:
    """Rates that nothing here beats.

    Attributes:
        flops: Floating-point operations per second in a float32 matrix product.
        bytes: Bytes per second read and written by a copy larger than any cache.
    """

    flops: float
    bytes: float

    def floor(self, flops: float, moved: float) -> float:
        """Seconds that so many operations and bytes take at least, were they perfectly overlapped."""
        return max(flops / self.flops, moved / self.bytes)


def measure_peaks() -> Peaks:
    """The best of several tries: what others do on the machine at the same time only makes them slower."""
    side, length = 1024, 1 << 25
    matrix, source = torch.randn(side, side), torch.randn(length)
    target = torch.empty_like(source)
    product = min(_times(lambda: matrix @ matrix, 20))
    copy = min(_times(lambda: target.copy_(source), 20))
    return Peaks(flops=2 * side**3 / product, bytes=2 * source.nbytes / copy)


def alternate(
    steps: Sequence[Callable[[], object]], *, rounds: int, clock: Callable[[], float] = time.perf_counter
) -> list[list[float]]:
    """Seconds of each step in each round, the steps in turn, so that what disturbs one disturbs the others as well.

    `time.process_time` as the clock leaves out the time that other processes had the processor.
    """
    for step in steps:
        step()
    rows = [[_times(step, 1, clock)[0] for step in steps] for _ in range(rounds)]
    return [list(times) for times in zip(*rows, strict=True)]


def middle_ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Median over rounds of slow over fast."""
    return median(one / other for one, other in zip(slow, fast, strict=True))


def _times(step: Callable[[], object], count: int, clock: Callable[[], float] = time.perf_counter) -> list[float]:
    taken = []
    for _ in range(count):
        started = clock()
        step()
        taken.append(clock() - started)
    return taken
