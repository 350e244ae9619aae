"""Speed and memory of attacks on one device, in about five minutes: `python -m tests.benchmarks.devices --device cuda`.

Steps per second and peak memory of `bn-aware`, of the double backward and of autograd; seconds of a recursive
inversion; and attacks on as many victims at once, a process each as in the pipeline, as still make more steps together.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress

import torch

from leakpipe.attacks.optimise import invert
from leakpipe.attacks.presets import PRESETS
from leakpipe.cli.options import use_device
from leakpipe.errors import LeakpipeError
from tests.benchmarks.cases import Case, advancing, observe

ATTACKS = (("bn-aware", "double-backward"), ("bn-cosine", "double-backward"), ("bn-cosine", "autograd"))
MORE = 1.1  # gain in steps per second, below which more victims at once are no gain
STAGES = 7  # of a recursive inversion


def main() -> None:
    """Print one row per network and attack, then one per number of victims at once."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.devices", description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--models", nargs="*", default=["resnet18", "resnet50"])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--seconds", type=float, default=6, help="of each measurement")
    parser.add_argument("--limit", type=float, default=90, help="seconds for a recursive inversion")
    parser.add_argument("--victims", type=int, default=32, help="at most, at once")
    parser.add_argument("--here", nargs=3, metavar=("MODEL", "PRESET", "ENGINE"), help="measure in this process")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.here:
        _measure(chosen, *chosen.here)
        return
    device = use_device(chosen.device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else device.type
    print(f"torch {torch.__version__}, {name}, {chosen.size}×{chosen.size}, batch 1\n")
    print("| network | attack | engine | steps/s | peak memory, MB |\n|---|---|---|---|---|")
    for model in chosen.models:
        for attack in ATTACKS:
            (found,) = _together(chosen, model, *attack, victims=1)
            print(f"| {model} | {' | '.join(attack)} | {found['speed']:.2f} | {found['memory']:.0f} |", flush=True)
        (found,) = _together(chosen, model, "recursive", "", victims=1)
        print(f"| {model} | recursive | | {found['said']} | {found['memory']:.0f} |", flush=True)
    print("\n| network | victims at once | steps/s of all | peak memory of each, MB |\n|---|---|---|---|")
    for model in chosen.models:
        _saturate(chosen, model)


def _saturate(chosen: argparse.Namespace, model: str) -> None:
    victims, last = 1, 0.0
    while victims <= chosen.victims:
        found = _together(chosen, model, "bn-cosine", "double-backward", victims=victims)
        speed = sum(each["speed"] for each in found)
        memory = max(each["memory"] for each in found)
        print(f"| {model} | {victims} | {speed:.2f} | {memory:.0f} |", flush=True)
        if speed < MORE * last or not all(each["speed"] for each in found):
            break
        victims, last = 2 * victims, speed


def _together(
    chosen: argparse.Namespace, model: str, preset: str, engine: str, *, victims: int
) -> list[dict[str, float]]:
    """Starts a process for each victim, and lets them measure at the same time once all are ready."""
    options = ("device", "size", "seconds", "limit")
    arguments = [part for name in options for part in (f"--{name}", str(getattr(chosen, name)))]
    command = [sys.executable, "-m", "tests.benchmarks.devices", *arguments, "--here", model, preset, engine]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(victims)
    ]
    for process in running:
        assert process.stdout is not None
        process.stdout.readline()  # it is ready
    found = []
    for process in running:
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it has failed and says why itself
            process.stdin.write("\n")
            process.stdin.flush()
    for process in running:
        said = process.communicate()[0]
        found.append(json.loads(said) if process.returncode == 0 else {"speed": 0.0, "memory": 0.0, "said": "failed"})
    return found


def _measure(chosen: argparse.Namespace, model: str, preset: str, engine: str) -> None:
    device = use_device(chosen.device)
    observation = observe(Case(model=model, size=chosen.size, preset=preset)).to(device)
    if preset == "recursive":
        print(flush=True)
        input()
        began, said = time.perf_counter(), ""

        def give_up(_iteration: int, _objective: float) -> None:
            if time.perf_counter() - began > chosen.limit:
                raise LeakpipeError(f"over {chosen.limit:g} s")

        settings = PRESETS[preset].settings.model_copy(update={"iterations": 10 * STAGES})
        try:
            maps = len(invert(observation, settings, seed=0, on_iteration=give_up).layers)
            said = f"{maps} maps, {settings.iterations} iterations: "
        except LeakpipeError as error:
            said = f"{error}: "
        print(json.dumps({"said": f"{said}{time.perf_counter() - began:.1f} s", "memory": _peak(device)}))
        return
    changes = {"engine": engine, "restarts": 1, "group_weight": 0.0}
    advance = advancing(observation, PRESETS[preset].settings.model_copy(update=changes))
    for _ in range(2):
        advance()
    print(flush=True)
    input()
    steps, seconds = _count(advance, chosen.seconds, device)
    print(json.dumps({"speed": steps / seconds, "memory": _peak(device)}))


def _count(advance: Callable[[], None], seconds: float, device: torch.device) -> tuple[int, float]:
    began, steps = time.perf_counter(), 0
    while not steps or time.perf_counter() - began < seconds:
        advance()
        if device.type == "cuda":
            torch.cuda.synchronize()
        steps += 1
    return steps, time.perf_counter() - began


def _peak(device: torch.device) -> float:
    """Of tensors on a GPU, of the whole process on the CPU, in MB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


if __name__ == "__main__":
    main()
