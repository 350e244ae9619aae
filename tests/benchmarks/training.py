"""Images per second of processor time in a client's round, beside a bare loop: `python -m tests.benchmarks.training`.

Both train the same network on the same batches for eight steps, on one thread. The bare loop goes on with its network
and optimiser; `local_update` starts from the global model every time, and returns the differences that a client sends.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import torch
from torch import nn

from leakpipe.client.batches import Batch
from leakpipe.client.local_update import local_update
from leakpipe.models.preprocessing import normalize_input
from leakpipe.models.state import build_module, initial_state
from leakpipe.params.models import ModelParams
from leakpipe.params.training import AdamParams, OptimizerParams, SgdParams, TrainingParams
from tests.benchmarks.cases import CLIENT
from tests.benchmarks.machine import alternate, middle_ratio

WIDTHS, STRIDES, SIZE, STEPS = (32, 32, 64, 64), (1, 2, 1, 2), 32, 8
ROUNDS = 60
OPTIMIZERS: dict[str, OptimizerParams] = {
    "SGD": SgdParams(kind="sgd"),
    "SGD with momentum 0.9": SgdParams(kind="sgd", momentum=0.9),
    "Adam": AdamParams(kind="adam"),
}


def main() -> None:
    """Print one row per optimiser and batch size, on one thread."""
    torch.set_num_threads(1)
    print("| optimiser | batch | images/s | bare torch loop | ratio |\n|---|---|---|---|---|")
    for name, optimizer in OPTIMIZERS.items():
        for size in (1, 4, 8):
            batches = [Batch(torch.rand(size, 1, SIZE, SIZE), torch.randint(0, 2, (size,))) for _ in range(STEPS)]
            ours, bare = alternate(
                [_ours(batches, optimizer), _bare(batches, optimizer)], rounds=ROUNDS, clock=time.process_time
            )
            speeds = (f"{size * STEPS / median(times):.0f}" for times in (ours, bare))
            print(f"| {name} | {size} | {' | '.join(speeds)} | {middle_ratio(bare, ours):.2f} |", flush=True)


def _ours(batches: list[Batch], optimizer: OptimizerParams) -> Callable[[], object]:
    params = ModelParams(name="convnet-bn", widths=WIDTHS, strides=STRIDES)
    state = initial_state(build_module(params, classes=2, image_size=SIZE), seed=0)
    settings = replace(CLIENT, training=TrainingParams(optimizer=optimizer))
    return lambda: local_update(state, batches, settings)


def _bare(batches: list[Batch], params: OptimizerParams) -> Callable[[], object]:
    """The same network and steps as anybody writes them with torch."""
    layers: list[nn.Module] = []
    channels = 3
    for width, stride in zip(WIDTHS, STRIDES, strict=True):
        layers += [nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * (SIZE // 4) ** 2, 2)).train()
    kind = torch.optim.SGD if isinstance(params, SgdParams) else torch.optim.Adam
    optimizer = kind(network.parameters(), lr=CLIENT.learning_rate, **params.model_dump(exclude={"kind"}))

    def train() -> None:
        for batch in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(normalize_input(batch.images)), batch.labels).backward()
            optimizer.step()

    return train


if __name__ == "__main__":
    main()
