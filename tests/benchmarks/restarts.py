"""Restarts together against one after the other, in steps of one: `python -m tests.benchmarks.restarts`."""

from collections.abc import Callable
from statistics import median

import torch

from leakpipe.allocator import keep_freed_memory
from leakpipe.attacks.presets import PRESETS
from leakpipe.attacks.search import Search
from tests.benchmarks.cases import observe
from tests.benchmarks.machine import alternate, middle_ratio

RESTARTS = 16
MODELS = (("convnet-bn", 32, 1), ("convnet-bn", 32, 2), ("resnet20", 32, 1))


def main() -> None:
    """Print one row per model, on one thread."""
    torch.set_num_threads(1)
    keep_freed_memory()
    print(f"Milliseconds a restart and step, of {RESTARTS} restarts.\n")
    print("| model | size | images | at once | together | one | ratio | one by autograd | ratio |\n|" + "---|" * 9)
    for model, size, images in MODELS:
        together, at_once = _stepper(model, size, images, restarts=RESTARTS)
        one, by_autograd = (_stepper(model, size, images, step=step)[0] for step in ("passes", "autograd"))
        times = alternate([together, _repeated(one), _repeated(by_autograd)], rounds=10)
        cells = [f"{1e3 * median(each) / RESTARTS:.1f}" for each in times]
        ratios = [f"{middle_ratio(slow, times[0]):.2f}" for slow in times[1:]]
        row = [model, size, images, at_once, cells[0], cells[1], ratios[0], cells[2], ratios[1]]
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


def _stepper(
    model: str, size: int, images: int, *, restarts: int = 1, step: str = "passes"
) -> tuple[Callable[[], None], int]:
    """A function that takes the next step of all restarts, and how many of them are evaluated at once."""
    observation = observe(model, size, images)
    settings = PRESETS["leakpipe"].settings.model_copy(update={"step": step, "restarts": restarts, "start": "noise"})
    attack = Search(observation, settings, observation.labels, seed=0)
    state = attack.start()

    def advance() -> None:
        nonlocal state
        state = attack.advance(state)

    return advance, attack.terms.together


def _repeated(advance: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        for _ in range(RESTARTS):
            advance()

    return run


if __name__ == "__main__":
    main()
