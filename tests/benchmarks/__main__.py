"""Time one attack step: by the double backward, by autograd, and against the floor of this machine."""

import argparse
import subprocess
import sys
from pathlib import Path
from statistics import median

import torch

from tests.benchmarks.cases import CASES, observe, stepper
from tests.benchmarks.counts import count_step
from tests.benchmarks.machine import Peaks, alternate, measure_peaks, middle_ratio


def main() -> None:
    """Print one row per case."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("cases", nargs="*", default=list(CASES), help=f"of {', '.join(CASES)}; all if none is named")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--memory", choices=("double-backward", "autograd"), help="only print the peak memory of this engine, MB"
    )
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.memory:
        print(round(_peak_memory(chosen.cases[0], chosen.memory)))
        return
    peaks = measure_peaks()
    print(f"torch {torch.__version__}, {chosen.threads} threads: {peaks.flops / 1e9:.0f} GFLOP/s in a matrix product,")
    print(f"{peaks.bytes / 1e9:.1f} GB/s in a copy. Milliseconds a step, medians of alternating rounds.\n")
    print("| case | GFLOP | MB | floor | double backward | of the floor | autograd | ratio | memory of both, MB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for case in chosen.cases:
        print(_row(case, peaks), flush=True)


def _row(case: str, peaks: Peaks) -> str:
    chosen = CASES[case]
    observation = observe(chosen)
    assert observation.client.prior is not None
    needed = count_step(observation.before, observation.client.prior[: chosen.batch_size]).times(chosen.steps)
    slow, fast = alternate(
        [stepper(chosen, engine) for engine in ("autograd", "double-backward")], rounds=chosen.rounds
    )
    floor = peaks.floor(needed.flops, needed.bytes)
    memory = "/".join(_memory_of(case, engine) for engine in ("double-backward", "autograd"))
    return (
        f"| {case} | {needed.flops / 1e9:.2f} | {needed.bytes / 1e6:.0f} | {1e3 * floor:.1f} | "
        f"{1e3 * median(fast):.1f} | {median(fast) / floor:.1f}× | {1e3 * median(slow):.1f} | "
        f"{middle_ratio(slow, fast):.2f} | {memory} |"
    )


def _memory_of(case: str, engine: str) -> str:
    """Of a process of its own, whose memory nothing else has touched."""
    command = [sys.executable, "-m", "tests.benchmarks", case, "--memory", engine]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _peak_memory(case: str, engine: str) -> float:
    """By how much three steps raise this process above what it held before, in MB (Linux only)."""
    advance = stepper(CASES[case], engine)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = _resident("VmRSS")
    for _ in range(3):
        advance()
    return _resident("VmHWM") - before


def _resident(kind: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) / 1024


if __name__ == "__main__":
    main()
