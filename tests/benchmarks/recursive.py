"""Measures recursive inversion of one batch: `python -m tests.benchmarks.recursive resnet18 64 --seeds 4,5,6`.

Faces (scikit-image's) at 32 and 64 pixels, phantom X-rays at 224. The attacked client holds `--images`; four clients of
8, 8, 32 and 32 others train with it where there were rounds before. What it sends are differences of float32 weights.
"""

import argparse
import time
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from leakpipe.attacks.observation import KnownClient, Observation
from leakpipe.attacks.optimise import invert
from leakpipe.attacks.presets import PRESETS
from leakpipe.client.batches import assume_schedule, make_batches, schedule_batches
from leakpipe.client.local_update import LocalSettings, local_update
from leakpipe.client.update import ClientUpdate
from leakpipe.data.datasets import DATASETS
from leakpipe.data.images import LabeledImages
from leakpipe.defenses.noise import add_gaussian_noise
from leakpipe.errors import LeakpipeError
from leakpipe.federation.pretraining import pretrain
from leakpipe.metrics.score import score_images
from leakpipe.models.state import ModelState, Tensors, build_module, initial_state
from leakpipe.params.data import ImagesParams
from leakpipe.params.defenses import GaussianParams
from leakpipe.params.models import ModelParams, PretrainingParams
from leakpipe.params.reading import parse_section
from leakpipe.params.training import TrainingParams

XRAY_SIZE = 224  # pixels; smaller images are faces
PHANTOMS, PUBLIC_PHANTOMS, PUBLIC_FACES = 420, 300, 42
OTHERS = ((8, 8), (8, 4), (32, 4), (32, 8))  # images and batch size of the clients that are not attacked
PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}  # of what is sent
CLIENT = LocalSettings(learning_rate=0.01, batch_norm_momentum=0.1)
CLIENTS: dict[str, dict[str, Any]] = {  # how the attacked client takes its one step
    "sgd": {},
    "momentum": {"optimizer": {"kind": "sgd", "momentum": 0.9, "nesterov": True}},
    "decay": {"optimizer": {"kind": "sgd", "momentum": 0.9, "weight_decay": 0.01}},
    "clipped": {"clipping": {"kind": "norm", "limit": 0.1}},
    "smoothed": {"loss": {"label_smoothing": 0.1}},
    "bf16": {"precision": "bf16"},
    "adam": {"optimizer": {"kind": "adam"}},
}


@dataclass(frozen=True)
class Case:
    """One draw: `public` weights are trained for five epochs on the public images first; `client` is how one trains.

    Labels are granted where there are several images; of one image they can be read from the update.
    """

    model: str
    size: int
    seed: int
    rounds: int
    public: bool = False
    client: str = "sgd"
    images: int = 1
    batch_size: int = 1
    epochs: int = 1
    learning_rate: float = CLIENT.learning_rate
    sent: str = "float32"

    def observe(self, data: LabeledImages, cache: Path) -> tuple[Observation, Tensor]:
        """Returns what the attacker sees, and the attacked images, shape (images, 1, size, size)."""
        images, labels = torch.tensor(data.images), torch.tensor(data.labels)
        xray = self.size == XRAY_SIZE
        generator = torch.Generator().manual_seed(1000 + self.seed)
        order = torch.randperm(len(images), generator=generator)
        known = PUBLIC_PHANTOMS if xray else PUBLIC_FACES
        public, rest = order[:known], order[known:]
        # one patient with opacities, or one face; several images are of both classes
        victim = rest[labels[rest] == int(xray)][:1] if self.images == 1 else rest[: self.images]
        shape = {"widths": (32, 32, 64, 64), "strides": (1, 2, 1, 2)} if self.model == "convnet-bn" else {}
        params = ModelParams(name=self.model, **shape)
        state = initial_state(build_module(params, classes=2, image_size=self.size), seed=self.seed)
        held = f"-{self.images}x{self.batch_size}x{self.epochs}" if self.images * self.epochs > 1 else ""
        name = f"{self.model}-{self.size}-s{self.seed}-r{self.rounds}{'-public' if self.public else ''}{held}"
        path = cache / f"{name}.pt"
        if path.exists():
            state = state.with_tensors(*torch.load(path))
        else:
            if self.public:
                state = pretrain(state, images[public], labels[public], PretrainingParams(epochs=5), seed=self.seed)
            state = self._train(state, images, labels, victim, rest[~torch.isin(rest, victim)], generator)
            torch.save((state.weights, state.statistics), path)
        training = parse_section(TrainingParams, CLIENTS[self.client], source=self.client)
        trained = replace(CLIENT, training=training, learning_rate=self.learning_rate)
        schedule = assume_schedule(self.images, self.batch_size, self.epochs)
        update = local_update(state, make_batches(images[victim], labels[victim], schedule), trained)
        weights, statistics = (_rounded(getattr(state, p), getattr(update, p)) for p in ("weights", "statistics"))
        weights = {name: value.to(PRECISIONS[self.sent]) for name, value in weights.items()}
        sent = ClientUpdate(weights, statistics, len(schedule))
        client = KnownClient(
            images=self.images,
            batch_size=self.batch_size,
            epochs=self.epochs,
            labels=labels[victim] if self.images > 1 else None,
            prior=images[public].mean(dim=0, keepdim=True).expand(self.images, -1, -1, -1),
        )
        observation = Observation(
            before=state,
            update=sent,
            settings=trained,
            image_shape=(images.shape[1], images.shape[2], images.shape[3]),
            client=client,
            public=images[public],
        )
        return observation, images[victim]

    def _train(
        self,
        state: ModelState,
        images: Tensor,
        labels: Tensor,
        victim: Tensor,
        others: Tensor,
        generator: torch.Generator,
    ) -> ModelState:
        clients, first = [(victim, self.batch_size)], 0
        for count, batch_size in OTHERS:
            clients.append((others[first : first + count], batch_size))
            first += count
        total = sum(len(held) for held, _ in clients)
        for _ in range(self.rounds):
            weights, statistics = dict(state.weights), dict(state.statistics)
            for held, batch_size in clients:
                schedule = schedule_batches(len(held), batch_size, 1, generator)
                update = local_update(state, make_batches(images[held], labels[held], schedule), CLIENT)
                for target, change in ((weights, update.weights), (statistics, update.statistics)):
                    for name, value in change.items():
                        target[name] = target[name] + value.detach() * (len(held) / total)
            state = state.with_tensors(weights, statistics)
        return state


def _rounded(before: Tensors, change: Tensors) -> Tensors:
    return {name: (before[name] + value.detach()) - before[name] for name, value in change.items()}


def main() -> None:
    """Print one line per draw."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.recursive", description=__doc__)
    parser.add_argument("model", choices=("resnet18", "resnet20", "resnet34", "resnet50"))
    parser.add_argument("size", type=int)
    parser.add_argument("--seeds", default="4,5,6")
    parser.add_argument("--rounds", default="0,12", help="of federated training before the attack")
    parser.add_argument("--images", type=int, default=1, help="of the attacked client, in one batch")
    parser.add_argument("--client", choices=CLIENTS, nargs="*", default=["sgd"], help="how the attacked client trains")
    parser.add_argument("--learning-rate", default=str(CLIENT.learning_rate), help="of the attacked client, or several")
    parser.add_argument("--sent", choices=PRECISIONS, nargs="*", default=["float32"], help="precision of the update")
    parser.add_argument("--noise", type=float, nargs="*", default=[0.0], help="σ0 of the paper's noise on the update")
    parser.add_argument("--public", action="store_true", help="train on the public images before that")
    parser.add_argument("--cache", type=Path, default=Path("/tmp/leakpipe-recursive"), help="where models are kept")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    chosen.cache.mkdir(parents=True, exist_ok=True)
    if chosen.size == XRAY_SIZE:
        drawn = ImagesParams(dataset="cxr-phantom", image_size=XRAY_SIZE, images=PHANTOMS, burned_text=True)
    else:
        drawn = ImagesParams(dataset="lfw-faces", image_size=chosen.size)
    data = DATASETS[drawn.dataset].load(drawn)
    seeds, rates = map(int, chosen.seeds.split(",")), map(float, chosen.learning_rate.split(","))
    held, rounds_before = chosen.images, map(int, chosen.rounds.split(","))
    for settings in product(seeds, rounds_before, chosen.client, rates, chosen.sent, chosen.noise):
        seed, rounds, client, rate, sent, sigma = settings
        case = Case(
            chosen.model, chosen.size, seed, rounds, chosen.public, client, held, held, learning_rate=rate, sent=sent
        )
        observation, truth = case.observe(data, chosen.cache)
        if sigma > 0:
            params, generator = GaussianParams(kind="gaussian", sigma0=sigma), torch.Generator().manual_seed(seed)
            noisy = add_gaussian_noise(observation.update, params, generator=generator)
            observation = replace(observation, update=noisy)
        shown = f"{chosen.model} {chosen.size} seed {seed} rounds {rounds} {client} {rate} {sent} noise {sigma}"
        print(f"{shown}: {_attack(observation, truth)}", flush=True)


def _attack(observation: Observation, truth: Tensor) -> str:
    began = time.process_time()
    try:
        found = invert(observation, PRESETS["recursive"].settings, seed=0)
    except LeakpipeError as error:
        return str(error)
    seconds = time.process_time() - began
    assert observation.client.prior is not None
    rows = score_images(found.images.numpy(), truth.numpy(), observation.client.prior.numpy())
    shown, known = (", ".join(f"{row[name]:.3f}" for row in rows) for name in ("ssim", "ssim_prior"))
    lowest = f"lowest {found.layers[-1]['layer']} (residual {found.layers[-1]['residual']:.1e})" if found.layers else ""
    explained = "–" if found.explained is None else f"{found.explained:.2f}"
    return (
        f"SSIM {shown}, prior {known}, explained {explained}, {seconds:.0f} s of processor time, "
        f"{len(found.layers)} maps, {lowest} {' '.join(found.notes)}"
    )


if __name__ == "__main__":
    main()
