"""Freed memory is kept for the next step."""

import subprocess
import sys

import pytest

STEPS = """
import resource, numpy
from leakpipe.cli.allocator import keep_freed_memory
kept = keep_freed_memory() if {keep} else False
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def step():
    blocks = [numpy.ones(1 << 19) for _ in range(8)]
step()
before = faults()
step()
print(kept, faults() - before)
"""


def faults_of_a_step(*, keep: bool) -> tuple[bool, int]:
    found = subprocess.run(
        [sys.executable, "-c", STEPS.format(keep=keep)], check=True, capture_output=True, text=True
    ).stdout.split()
    return found[0] == "True", int(found[1])


def test_the_next_step_takes_no_new_pages() -> None:
    kept, faults = faults_of_a_step(keep=True)
    if not kept:
        pytest.skip("the C library is not glibc")
    assert faults < 100
    assert faults_of_a_step(keep=False)[1] > 1000


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from leakpipe.cli import allocator

    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: object())
    assert allocator.keep_freed_memory() is False
