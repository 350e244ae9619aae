"""Memory of an attack step: `python tests/benchmark_memory.py` prints peak memory per preset; nothing is asserted.

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

    from leakpipe.attacks.observation import Observation
    from leakpipe.attacks.optimise import invert
    from leakpipe.attacks.presets import PRESETS
    from leakpipe.federation.local import Batch, LocalSettings, local_update
    from leakpipe.models.state import build_module, initial_state
    from leakpipe.params_models import ModelParams

    torch.set_num_threads(1)
    state = initial_state(build_module(ModelParams(name=model), classes=2, image_size=size), seed=0)
    generator = torch.Generator().manual_seed(1)
    images, labels = torch.rand(batch, 1, size, size, generator=generator), torch.arange(batch) % 2
    settings = LocalSettings(learning_rate=0.01)
    observation = Observation(
        before=state,
        update=local_update(state, [Batch(images, labels)], settings),
        settings=settings,
        images=batch,
        batch_size=batch,
        epochs=1,
        image_shape=(1, size, size),
        labels=labels,
        prior=torch.full_like(images, 0.5),
    )
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
    parser.add_argument("--preset", nargs="+", default=["leakpipe", "bn-aware"])
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--here", action="store_true", help="measure one attack, in this process")
    options = parser.parse_args()
    for preset, batch in product(options.preset, options.batch):
        if options.here:
            attack(preset, options.model, batch, options.size, options.iterations)
            continue
        arguments = {"--model": options.model, "--size": options.size, "--batch": batch, "--preset": preset}
        chosen = [str(part) for pair in arguments.items() for part in pair]
        command = [sys.executable, __file__, "--here", *chosen, "--iterations", str(options.iterations)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
