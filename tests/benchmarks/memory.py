"""Memory of an attack step: `python -m tests.benchmarks.memory` prints peak memory per preset; nothing is asserted.

Each attack is a process of its own, because a process never reports less than its peak so far. One client, one local
step on a batch of random images, an untrained network.
"""

import argparse
import resource
import subprocess
import sys
import time
from itertools import product

# torch is imported in the measured processes only: a child starts with the peak of the process that started it.


def attack(preset: str, model: str, batch: int, size: int, iterations: int) -> None:
    """Run one attack in this process and print what it took."""
    import torch

    from leakpipe.attacks.optimise import invert
    from leakpipe.attacks.presets import PRESETS
    from tests.benchmarks.cases import Case, observe

    torch.set_num_threads(1)
    observation = observe(Case(model=model, size=size, images=batch))
    client = peak_mib()
    chosen = PRESETS[preset].settings.model_copy(update={"iterations": iterations})
    start = time.perf_counter()
    invert(observation, chosen, seed=0)
    seconds = (time.perf_counter() - start) / iterations
    print(
        f"{model}, {size}×{size}, batch {batch}, {preset}: peak {peak_mib():.0f} MiB "
        f"({client:.0f} MiB after the client's own step), {seconds:.1f} s an iteration",
        flush=True,
    )


def peak_mib() -> float:
    """Most memory that this process held at once (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure every preset at every batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--size", type=int, default=224, help="height and width in pixels")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="images in the client's only step")
    parser.add_argument("--preset", nargs="+", default=["bn-cosine", "bn-aware"])
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--here", action="store_true", help="measure one attack, in this process")
    options = parser.parse_args()
    for preset, batch in product(options.preset, options.batch):
        if options.here:
            attack(preset, options.model, batch, options.size, options.iterations)
            continue
        arguments = {"--model": options.model, "--size": options.size, "--batch": batch, "--preset": preset}
        chosen = [str(part) for pair in arguments.items() for part in pair]
        command = [
            sys.executable,
            "-m",
            "tests.benchmarks.memory",
            "--here",
            *chosen,
            "--iterations",
            str(options.iterations),
        ]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
