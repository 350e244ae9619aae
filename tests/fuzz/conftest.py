"""The number of inputs: few, always the same ones, in an ordinary test run, `LEAKPIPE_FUZZ` new ones in `make fuzz`."""

import os

from hypothesis import HealthCheck, settings

TESTS = 14
FEW = 420  # inputs of all tests together
settings.register_profile(
    "leakpipe",
    max_examples=max(1, int(os.environ.get("LEAKPIPE_FUZZ", FEW)) // TESTS),
    derandomize="LEAKPIPE_FUZZ" not in os.environ,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("leakpipe")
