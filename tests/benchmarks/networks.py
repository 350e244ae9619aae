"""torchvision's networks straight from their constructors, attacked: `python -m tests.benchmarks.networks`.

Each is rehearsed, attacked for one step, and the attack's gradient is compared with finite differences in float64.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torchvision
from torch import nn

from leakpipe.attacks.observation import KnownClient, Observation
from leakpipe.attacks.rehearsal import rehearse
from leakpipe.attacks.search import Search
from leakpipe.client.batches import Batch
from leakpipe.client.local_update import LocalSettings, local_update
from leakpipe.client.update import ClientUpdate
from leakpipe.errors import LeakpipeError
from leakpipe.models.any_module import active_dropout
from leakpipe.models.batchnorm import batch_norm_layers
from leakpipe.models.state import ModelState
from leakpipe.params.attack_settings import AttackSettings

LABELS = torch.tensor([0, 2])


@dataclass(frozen=True)
class Network:
    """A constructor of torchvision, and the size of the images that it gets."""

    name: str
    size: int = 96
    options: dict[str, Any] = field(default_factory=dict)


NETWORKS = (
    Network("resnet18"),
    Network("resnet50"),
    Network("densenet121"),
    Network("vgg11_bn", 64),
    Network("mobilenet_v2"),
    Network("mobilenet_v3_small"),
    Network("efficientnet_b0"),
    Network("regnet_y_400mf"),
    Network("convnext_tiny", 64),
    Network("vit_b_32", 64, {"image_size": 64}),
    Network("swin_t", 64),
    Network("shufflenet_v2_x1_0"),
    Network("mnasnet1_0"),
    Network("squeezenet1_1"),
    Network("googlenet", 96, {"aux_logits": False, "init_weights": True}),
    Network("inception_v3", 112, {"aux_logits": False, "init_weights": True}),
    Network("googlenet", 96, {"init_weights": True}),
)


def main() -> None:
    """Print one row per network."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.networks", description=__doc__)
    parser.add_argument("names", nargs="*", help="of torchvision; all if none is named")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print("| network | pixels | dropout | engine | a step, s | gradient against differences | |")
    print("|---|---|---|---|---|---|---|")
    for network in NETWORKS:
        if not chosen.names or network.name in chosen.names:
            print(_row(network), flush=True)


def _row(network: Network) -> str:
    torch.manual_seed(0)
    module: nn.Module = getattr(torchvision.models, network.name)(num_classes=3, **network.options).double()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    cells = [f"`{network.name}`", str(network.size), "believed off" if active_dropout(module) else ""]
    try:
        cells += _attacked(module, network.size)
    except LeakpipeError as error:
        cells += ["", "", "", str(error)]
    if any(not torch.equal(value, before[name]) for name, value in module.state_dict().items()):
        cells[-1] += " THE NETWORK CHANGED"
    return f"| {' | '.join(cells)} |"


def _attacked(module: nn.Module, size: int) -> list[str]:
    state, client = ModelState.of(module, dropout=False), LocalSettings(learning_rate=0.01)
    momenta = {layer.momentum for layer in batch_norm_layers(module).values()}
    if momenta:
        client = LocalSettings(learning_rate=0.01, batch_norm_momentum=float(momenta.pop()))  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    truth, candidates = torch.rand(2, 2, 3, size, size, generator=generator, dtype=torch.float64)
    try:
        update = local_update(state, [Batch(truth, LABELS)], client)
    except (AttributeError, TypeError):  # the rehearsal says why; it reads no update for that
        update = ClientUpdate(state.weights, state.statistics, 1)
    observation = Observation(
        before=state,
        update=update,
        settings=client,
        image_shape=(3, size, size),
        client=KnownClient(images=2, batch_size=2, epochs=1, labels=LABELS, prior=candidates),
    )
    notes = [note for note in rehearse(observation) if not note.startswith("Not checked")]
    search = Search(observation, AttackSettings(iterations=1), LABELS, seed=0)
    started = time.process_time()
    search.advance(search.start())
    seconds = time.process_time() - started
    objective = search.objective

    def evaluate(images: torch.Tensor) -> torch.Tensor:
        return objective.evaluate(images, LABELS).objective

    images = candidates.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(evaluate(images), images)
    error = _against_differences(evaluate, candidates, gradient)
    return [type(objective.engine).__name__, f"{seconds:.1f}", f"{error:.0e}", " ".join(notes) or "passes"]


def _against_differences(
    evaluate: Callable[[torch.Tensor], torch.Tensor], at: torch.Tensor, gradient: torch.Tensor, step: float = 1e-7
) -> float:
    """Relative error of the slope along the gradient's signs, the least of three steps: kinks spoil some."""
    along = gradient.sign() / gradient.numel() ** 0.5
    slope = float((gradient * along).sum())
    errors = []
    for size in (step, step / 3, step * 3):
        with torch.no_grad():
            found = float(evaluate(at + size * along) - evaluate(at - size * along)) / (2 * size)
        errors.append(abs(found / slope - 1))
    return min(errors)


if __name__ == "__main__":
    main()
