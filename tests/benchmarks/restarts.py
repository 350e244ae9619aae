"""Restarts together against one after the other, in steps of one: `python -m tests.benchmarks.restarts`."""

from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from leakpipe.attacks.presets import PRESETS
from leakpipe.cli.allocator import keep_freed_memory
from tests.benchmarks.cases import Case, advancing, observe
from tests.benchmarks.machine import alternate, middle_ratio

RESTARTS = 16
CASES = (Case(), Case(images=2), Case(model="resnet20"))


def main() -> None:
    """Print one row per case, on one thread."""
    torch.set_num_threads(1)
    keep_freed_memory()
    print(f"Milliseconds a restart and step, of {RESTARTS} restarts.\n")
    print("| model | size | images | together | one | ratio | one by autograd | ratio |\n|" + "---|" * 8)
    for case in CASES:
        together = _stepper(case, restarts=RESTARTS)
        one, by_autograd = (_repeated(_stepper(case, engine=engine)) for engine in ("double-backward", "autograd"))
        times = alternate([together, one, by_autograd], rounds=10)
        each, *others = (f"{1e3 * median(taken) / RESTARTS:.1f}" for taken in times)
        ratios = (f"{middle_ratio(slow, times[0]):.2f}" for slow in times[1:])
        pairs = " | ".join(" | ".join(pair) for pair in zip(others, ratios, strict=True))
        print(f"| {case.model} | {case.size} | {case.images} | {each} | {pairs} |", flush=True)


def _stepper(case: Case, **changes: Any) -> Callable[[], None]:
    """A function that takes the next step of all restarts."""
    settings = PRESETS[case.preset].settings.model_copy(update={"start": "noise", **changes})
    return advancing(observe(case), settings)


def _repeated(advance: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        for _ in range(RESTARTS):
            advance()

    return run


if __name__ == "__main__":
    main()
