"""Run drills: `python -m tests.drills [NAME...]`; without names all, which takes about ten minutes on two cores."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.drills import disks, interrupted, memory, restore, services
from tests.drills.stage import SkippedDrillError, Stage

MODULES = (interrupted, disks, memory, services, restore)
DRILLS = {drill.__name__: drill for module in MODULES for drill in module.DRILLS}


def main() -> int:
    """Run the drills that were asked for; 0 if none failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.drills", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(DRILLS)}")
    parser.add_argument("--strikes", type=int, default=3, help="kills in each drill that strikes at random moments")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(DRILLS):
        parser.error(f"no drill {', '.join(sorted(unknown))}; known: {', '.join(DRILLS)}")
    with tempfile.TemporaryDirectory(prefix="leakpipe-drill-") as folder:
        stage = Stage.build(Path(folder), seed=asked.seed, strikes=asked.strikes)
        print(f"an undisturbed run takes {stage.seconds:.0f} s", flush=True)
        failed = [name for name in asked.names or DRILLS if not passes(name, stage)]
    print(f"failed: {', '.join(failed)}" if failed else "all held")
    return 1 if failed else 0


def passes(name: str, stage: Stage) -> bool:
    """Run one drill and say how it went."""
    started = time.monotonic()
    try:
        DRILLS[name](stage)
        outcome = "held"
    except SkippedDrillError as reason:
        outcome = f"skipped: {reason}"
    except Exception as error:  # whatever it is, the other drills are run
        outcome = f"FAILED: {error if isinstance(error, AssertionError) else repr(error)}"
    print(f"{name}: {outcome} ({time.monotonic() - started:.0f} s)", flush=True)
    return not outcome.startswith("FAILED")


if __name__ == "__main__":
    sys.exit(main())
