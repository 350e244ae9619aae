"""This repository's search beside its peers' on the same updates: `python -m tests.benchmarks.peers B1 --seconds 15`.

All know the same: the client's labels, its number of images and steps, batch normalisation in training mode, the batch
statistics that follow from the update, and the mean public image, at which every search starts. Each gets as many steps
as fit the seconds of processor time, one thread, timed just before; its schedule is as long as that. `recursive` takes
the time that it takes. Peers are read from the checkouts or packages that --breaching and --leakpro name.
"""

import argparse
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor

from leakpipe.attacks.halving import plan_rungs
from leakpipe.attacks.observation import Observation
from leakpipe.attacks.optimise import invert
from leakpipe.attacks.presets import PRESETS
from leakpipe.attacks.search import Search
from leakpipe.data.datasets import DATASETS
from leakpipe.metrics.matching import match_to_originals
from leakpipe.metrics.similarity import ssim
from leakpipe.params.attack_settings import AttackSettings
from leakpipe.params.data import ImagesParams
from tests.benchmarks.peers.breaching import run_breaching
from tests.benchmarks.peers.leakpro import run_leakpro
from tests.benchmarks.peers.trace import Attack, BudgetSpentError, Trace
from tests.benchmarks.recursive import PHANTOMS, XRAY_SIZE, Case

TRIED = 12  # steps that are timed, after two that are not
GOOD = 0.95
RUNGS = 3
CASES: dict[str, Callable[[int, int], Case]] = {
    "B1": lambda seed, rounds: Case("convnet-bn", 32, seed, rounds),
    "B4": lambda seed, rounds: Case("convnet-bn", 32, seed, rounds, images=4, batch_size=4),
    "B8": lambda seed, rounds: Case("convnet-bn", 32, seed, rounds, images=8, batch_size=8),
    "E2": lambda seed, rounds: Case("convnet-bn", 32, seed, rounds, epochs=2),
    "S2": lambda seed, rounds: Case("convnet-bn", 32, seed, rounds, images=8, batch_size=4),
    "resnet20": lambda seed, rounds: Case("resnet20", 32, seed, rounds),
    "resnet18-64": lambda seed, rounds: Case("resnet18", 64, seed, rounds),
    "resnet18-224": lambda seed, rounds: Case("resnet18", 224, seed, rounds),
}


def ours(settings: AttackSettings, *, restarts: int = 1) -> Attack:
    """An attack of this repository; with several restarts, which are halved, as many evaluations as with one."""

    def attack(observation: Observation, steps: int, trace: Trace) -> Tensor:
        changed = settings.model_copy(update={"iterations": steps, "labels": "granted"})
        if restarts > 1 and trace.last is None:  # what is timed is one start
            changed = changed.model_copy(update={"restarts": restarts, "rungs": RUNGS})
            evaluations = sum(rung.iterations * rung.survivors for rung in plan_rungs(changed))
            changed = changed.model_copy(update={"iterations": steps * steps // evaluations})
        search = Search(observation, changed, observation.client.labels, seed=0)
        state = search.start()
        while not state.stopped:
            trace.visit(search.result(state)[0])
            state = search.advance(state)
        return search.result(state)[0]

    return attack


def measure(attack: Attack, observation: Observation, truth: Tensor, seconds: float) -> dict[str, float]:
    """Runs one attack for about so many seconds.

    Returns:
        `ssim` of what the attack keeps, matched to the truth; `seconds` of processor time that it took; milliseconds a
        `step`; `good`, the seconds until a candidate reached `GOOD` (infinite if none did).
    """
    trial = Trace(steps=10**9, last=TRIED + 2)
    with suppress(BudgetSpentError):
        attack(observation, 10**5, trial)
    step = median(np.diff(trial.times[2:]))
    steps = max(10, round(seconds / step))
    trace = Trace(steps=steps)
    began = time.process_time()
    kept = attack(observation, steps, trace)
    taken = time.process_time() - began
    reached = (when for when, images in zip(trace.times, trace.images, strict=True) if score(images, truth) >= GOOD)
    return {"ssim": score(kept, truth), "seconds": taken, "step": 1e3 * step, "good": next(reached, float("inf"))}


def measure_equations(settings: AttackSettings, observation: Observation, truth: Tensor) -> dict[str, float]:
    """Runs an attack that solves equations once, whatever time it takes, in the terms of `measure`."""
    began = time.process_time()
    kept = invert(observation, settings, seed=0).images
    taken = time.process_time() - began
    found = score(kept, truth)
    return {"ssim": found, "seconds": taken, "step": float("nan"), "good": taken if found >= GOOD else float("inf")}


def score(images: Tensor, truth: Tensor) -> float:
    """Mean SSIM over the true images, each matched with one candidate so that the mean is greatest."""
    alike = np.array([[ssim(one[0].numpy(), other[0].numpy(), data_range=1.0) for one in images] for other in truth])
    return float(alike[np.arange(len(truth)), match_to_originals(alike)].mean())


def main() -> None:
    """Print one line per case, draw and attack."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.peers", description=__doc__)
    parser.add_argument("cases", nargs="*", default=["B1"], help=f"of {', '.join(CASES)}")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--seeds", default="11,12,13,14,15")
    parser.add_argument("--rounds", default="0,12", help="of federated training before the attack")
    parser.add_argument("--breaching", type=Path, help="folder that holds its package `breaching`")
    parser.add_argument("--leakpro", type=Path, help="folder that holds its package `leakpro`")
    parser.add_argument("--presets", default="bn-cosine", help="of this repository")
    parser.add_argument("--restarts", type=int, default=1, help="also run searches of this repository so, halved")
    parser.add_argument("--cache", type=Path, default=Path("/tmp/leakpipe-recursive"), help="where models are kept")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    chosen.cache.mkdir(parents=True, exist_ok=True)
    attacks = dict[str, Callable[[Observation, Tensor], dict[str, float]]]()
    for name in chosen.presets.split(","):
        settings = PRESETS[name].settings
        if settings.method == "recursive":
            attacks[name] = partial(measure_equations, settings)
        else:
            attacks[name] = partial(measure, ours(settings), seconds=chosen.seconds)
            if chosen.restarts > 1:
                halved = ours(settings, restarts=chosen.restarts)
                attacks[f"{name}, {chosen.restarts} starts"] = partial(measure, halved, seconds=chosen.seconds)
    if chosen.breaching:
        attacks["breaching modern"] = partial(measure, run_breaching(chosen.breaching), seconds=chosen.seconds)
    if chosen.leakpro:
        attacks["LeakPro inferred BN"] = partial(measure, run_leakpro(chosen.leakpro), seconds=chosen.seconds)
    print("| case | seed | rounds | prior | attack | SSIM | seconds | ms a step | seconds to 0.95 |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in chosen.cases:
        for seed in map(int, chosen.seeds.split(",")):
            for rounds in map(int, chosen.rounds.split(",")):
                observation, truth = draw(CASES[name](seed, rounds), chosen.cache)
                assert observation.client.prior is not None
                before = score(observation.client.prior, truth)
                for attack, run in attacks.items():
                    found = run(observation, truth)
                    print(
                        f"| {name} | {seed} | {rounds} | {before:.3f} | {attack} | {found['ssim']:.3f} | "
                        f"{found['seconds']:.1f} | {found['step']:.1f} | {found['good']:.1f} |",
                        flush=True,
                    )


def draw(case: Case, cache: Path) -> tuple[Observation, Tensor]:
    """Returns what every attacker sees, labels granted, and the true images."""
    if case.size == XRAY_SIZE:
        params = ImagesParams(dataset="cxr-phantom", image_size=XRAY_SIZE, images=PHANTOMS, burned_text=True)
    else:
        params = ImagesParams(dataset="lfw-faces", image_size=case.size)
    observation, truth = case.observe(DATASETS[params.dataset].load(params), cache)
    client = observation.client
    if client.labels is None:  # one image: a patient with opacities, or a face
        client = replace(client, labels=torch.tensor([int(case.size == XRAY_SIZE)]))
    return replace(observation, client=client), truth


if __name__ == "__main__":
    main()
