"""What compiling an attack's step gains, and from how many steps on it pays."""

import os
import time
from collections.abc import Callable
from statistics import median
from tempfile import TemporaryDirectory

import torch

from tests.benchmarks.cases import CASES, stepper
from tests.benchmarks.machine import alternate, middle_ratio

WAYS = [(step, compiled) for step in ("autograd", "passes") for compiled in (False, True)]


def compare_compiled(cases: list[str]) -> None:
    """Print one row per case."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads. Milliseconds a step, medians of alternating")
    print("rounds; seconds to compile the passes with nothing kept from before, and how many steps gain them.\n")
    print("| case | autograd | compiled | passes | compiled | over autograd | over passes | compile, s | pays from |")
    print("|---|---|---|---|---|---|---|---|---|")
    for case in cases:
        print(_row(case), flush=True)


def _row(case: str) -> str:
    ways = {way: stepper(CASES[case], way[0], compiled=way[1]) for way in WAYS}
    seconds = {step: _first_step(ways[step, True]) for step in ("autograd", "passes")}
    times = dict(zip(WAYS, alternate(list(ways.values()), rounds=CASES[case].rounds), strict=True))
    slow, fast = times["passes", False], times["passes", True]
    pays = seconds["passes"] / max(1e-9, median(slow) - median(fast))
    return (
        f"| {case} | {' | '.join(f'{1e3 * median(times[way]):.1f}' for way in WAYS)} | "
        f"{middle_ratio(times['autograd', False], fast):.2f} | {middle_ratio(slow, fast):.2f} | "
        f"{seconds['passes']:.0f} | {round(pays, -2):.0f} |"
    )


def _first_step(advance: Callable[[], None]) -> float:
    """Seconds of the step that compiles, nothing being kept on disk."""
    with TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        started = time.perf_counter()
        advance()
        return time.perf_counter() - started
