"""An audit's self-assessment beside the truth: `python -m tests.benchmarks.calibration --seeds 0,1 --out FILE`.

Simulated clients on faces and phantom X-rays, with and without noise, untrained and trained, are attacked as an audit
attacks. A row of the table is a case: what the attacks say of themselves, and the gain over the prior that is true.
`--judge FILE` compares the predictions made from one table with the truth of another.
"""

import argparse
import csv
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from leakpipe.attacks.explanation import explained_share
from leakpipe.attacks.observation import KnownClient, Observation
from leakpipe.attacks.optimise import invert
from leakpipe.audit.assessment import LIKELY, Attempt, measure_agreement
from leakpipe.audit.calibration import Calibration, Case
from leakpipe.audit.plan import applicable_attacks
from leakpipe.client.batches import make_batches
from leakpipe.client.local_update import LocalSettings, local_update
from leakpipe.data.datasets import DATASETS
from leakpipe.data.images import LabeledImages
from leakpipe.defenses.compose import apply_defenses
from leakpipe.federation.pretraining import pretrain
from leakpipe.metrics.score import score_images
from leakpipe.models.state import build_module, initial_state
from leakpipe.params.data import ImagesParams
from leakpipe.params.defenses import DefenseSteps
from leakpipe.params.models import ModelParams, PretrainingParams
from leakpipe.params.training import TrainingParams
from leakpipe.tables.verdicts import LEAK_MARGIN

SIZE, PUBLIC = 32, 42
CLIENTS = {
    "sgd": LocalSettings(learning_rate=0.01),
    "adam": LocalSettings(learning_rate=0.001, training=TrainingParams.model_validate({"optimizer": {"kind": "adam"}})),
}
DATA = {"faces": "lfw-faces", "phantom": "cxr-phantom"}
NETWORKS = {
    "convnet-bn": ModelParams(name="convnet-bn"),
    "resnet20": ModelParams(name="resnet20", widths=None, strides=None),
}
LONGEST = {"convnet-bn": 240, "resnet20": 120}  # iterations of an attack


@dataclass(frozen=True)
class Setup:
    """One simulated client."""

    data: str
    network: str
    images: int
    trained: bool
    sigma0: float
    seed: int
    optimizer: str = "sgd"

    def observe(self, held: LabeledImages) -> tuple[Observation, Tensor]:
        """Returns what an attacker sees who knows the noise, and the true images."""
        images, labels = torch.tensor(held.images), torch.tensor(held.labels)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(7000 + self.seed))
        public, own = order[:PUBLIC], order[PUBLIC : PUBLIC + self.images]
        state = initial_state(
            build_module(NETWORKS[self.network], classes=len(held.classes), image_size=SIZE), seed=self.seed
        )
        if self.trained:
            state = pretrain(state, images[public], labels[public], PretrainingParams(epochs=5), seed=self.seed)
        settings = CLIENTS[self.optimizer]
        update = local_update(state, make_batches(images[own], labels[own], [list(range(self.images))]), settings)
        steps = DefenseSteps.model_validate([{"kind": "gaussian", "sigma0": self.sigma0}] if self.sigma0 else [])
        sent = apply_defenses(update, steps, generator=torch.Generator().manual_seed(self.seed)).update
        prior = images[public].mean(dim=0, keepdim=True).expand(self.images, *images.shape[1:]).clone()
        client = KnownClient(images=self.images, batch_size=self.images, epochs=1, labels=labels[own], prior=prior)
        shape = (images.shape[1], SIZE, SIZE)
        observation = Observation(
            before=state, update=sent, settings=settings, image_shape=shape, client=client, defense=steps
        )
        return observation, images[own]


def measure(setup: Setup, held: LabeledImages) -> Case:
    """Attacks one client as an audit does."""
    observation, truth = setup.observe(held)
    assert observation.client.prior is not None  # `observe` gives one
    prior = observation.client.prior.numpy()
    attempts = []
    for name, settings, _, _ in applicable_attacks(observation):
        iterations = min(settings.iterations, LONGEST[setup.network])
        found = invert(observation, settings.model_copy(update={"iterations": iterations}), seed=setup.seed)
        explained = explained_share(observation, found.images, found.labels)
        attempts.append(Attempt("", "", name, found.images.numpy(), prior, explained, 0.0, iterations, ()))
    ordered = sorted(attempts, key=lambda each: -math.inf if each.explained is None else each.explained, reverse=True)
    scores = score_images(ordered[0].images, truth.numpy(), prior)
    gain = sum(row["ssim"] - row["ssim_prior"] for row in scores) / len(scores)
    return Case(ordered[0].explained or 0.0, measure_agreement(ordered), gain)


def setups(seeds: list[int]) -> Iterator[Setup]:
    """Yields the clients: every combination, of which the costly ones only on one data set."""
    for seed, data, images, trained, sigma0 in itertools.product(seeds, DATA, (1, 4), (False, True), (0, 0.5, 2, 10)):
        yield Setup(data, "convnet-bn", images, trained, sigma0, seed)
    for seed, trained in itertools.product(seeds, (False, True)):
        yield Setup("faces", "resnet20", 1, trained, 0, seed)
    for seed, trained, data, images in itertools.product(seeds, (False, True), DATA, (1, 4)):
        yield Setup(data, "convnet-bn", images, trained, 0, seed, "adam")


def judge(known: Calibration, cases: list[Case]) -> None:
    """Prints how often each prediction came true."""
    print("predicted share that leaks | cases | share that leaked")
    predicted = [(known.predict(case.explained, case.agreement), case.gain > LEAK_MARGIN) for case in cases]
    for low, high in ((0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.01)):
        chosen = [leaked for found, leaked in predicted if found.cases and low <= found.leaked / found.cases < high]
        print(
            f"{low:.2f} to {min(high, 1):.2f} | {len(chosen)} | {sum(chosen) / len(chosen) if chosen else math.nan:.2f}"
        )
    called = [leaked for found, leaked in predicted if found.low >= LIKELY]
    total = sum(leaked for _, leaked in predicted)
    print(f"called a leak (lower end ≥ {LIKELY}): {len(called)}, true: {sum(called)}; of {total} leaks in all")


def read(path: Path) -> list[Case]:
    """Reads a table of cases."""
    rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    return [Case(*(float(row[name]) for name in ("explained", "agreement", "gain"))) for row in rows]


def main() -> None:
    """Measures cases, or judges a table by another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=lambda text: [int(each) for each in text.split(",")], default=[0])
    parser.add_argument("--optimizer", choices=CLIENTS, help="measure the clients of this optimiser only")
    parser.add_argument("--out", type=Path, required=True, help="table (.csv); rows that it has are not measured again")
    parser.add_argument(
        "--judge", type=Path, help="compare predictions from this table with the truth of --out, and stop"
    )
    args = parser.parse_args()
    if args.judge:
        judge(Calibration(read(args.judge)), read(args.out))
        return
    torch.set_num_threads(1)
    loaded = {
        name: DATASETS[entry].load(
            ImagesParams(dataset=entry, image_size=SIZE, images=200 if name == "phantom" else None)
        )
        for name, entry in DATA.items()
    }
    names = ("data", "network", "images", "trained", "sigma0", "seed", "optimizer")
    fields = (*names, "explained", "agreement", "gain")
    done = set()
    if args.out.exists():
        rows = csv.DictReader(args.out.read_text(encoding="utf-8").splitlines())
        done = {tuple(row[name] for name in names) for row in rows}
    else:
        args.out.write_text(",".join(fields) + "\n", encoding="utf-8")
    for setup in setups(args.seeds):
        if args.optimizer not in (None, setup.optimizer):
            continue
        key = tuple(str(getattr(setup, name)) for name in names)
        if key in done:
            continue
        case = measure(setup, loaded[setup.data])
        with args.out.open("a", encoding="utf-8") as stream:
            csv.writer(stream, lineterminator="\n").writerow(
                [*key, *(round(value, 4) for value in vars(case).values())]
            )
        print(*key, *(f"{value:.3f}" for value in vars(case).values()), flush=True)


if __name__ == "__main__":
    main()
