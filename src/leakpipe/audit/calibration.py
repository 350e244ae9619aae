"""Calibration of the self-assessment: cases of which the truth is known, and those like a new one.

`calibration.csv` has one row for each of these cases, made by `python -m tests.benchmarks.calibration`: simulated
clients on faces and phantom X-rays, attacked as an audit attacks.
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from scipy.special import betaincinv

from leakpipe.tables.verdicts import LEAK_MARGIN

NEAREST = 30  # known cases that a new one is compared with
REACH = 0.25  # and how far they may be: a case that is like none is not predicted
CONFIDENCE = 0.95
FILE = "calibration.csv"


@dataclass(frozen=True)
class Case:
    """A case of which the truth is known.

    Attributes:
        explained: Share of the update that the best attempt explains.
        agreement: SSIM of the two best attempts.
        gain: Mean gain of the best attempt's images over the prior, in SSIM.
    """

    explained: float
    agreement: float
    gain: float


@dataclass(frozen=True)
class Prediction:
    """The outcome of the known cases that are most like a new one.

    Attributes:
        cases: How many there are.
        leaked: How many of them leaked: gained more than `LEAK_MARGIN`.
        low: Lower end of the 95 % interval of the share that leaks (Clopper and Pearson 1934); 0 without cases.
        gain: Their mean gain in SSIM; NaN without cases.
    """

    cases: int
    leaked: int
    low: float
    gain: float


class Calibration:
    """Known cases, to be asked what a new case is like.

    Args:
        cases: Any number; none predicts nothing.
    """

    def __init__(self, cases: Sequence[Case]) -> None:
        self.cases = list(cases)

    def predict(self, explained: float | None, agreement: float) -> Prediction:
        """Returns what became of the nearest cases; a case without agreement is compared by explanation alone."""
        if explained is None or not self.cases:
            return Prediction(0, 0, 0.0, math.nan)
        alone = math.isnan(agreement)

        def distance(case: Case) -> float:
            apart = 0.0 if alone or math.isnan(case.agreement) else case.agreement - agreement
            return math.hypot(case.explained - explained, apart)

        nearest = [case for case in sorted(self.cases, key=distance)[:NEAREST] if distance(case) <= REACH]
        if not nearest:
            return Prediction(0, 0, 0.0, math.nan)
        leaked = sum(case.gain > LEAK_MARGIN for case in nearest)
        low = float(betaincinv(leaked, len(nearest) - leaked + 1, (1 - CONFIDENCE) / 2)) if leaked else 0.0
        return Prediction(len(nearest), leaked, low, sum(case.gain for case in nearest) / len(nearest))


def shipped_calibration() -> Calibration:
    """Returns the calibration that leakpipe ships."""
    text = (files("leakpipe.audit") / FILE).read_text(encoding="utf-8")
    fields = ("explained", "agreement", "gain")
    return Calibration(
        [Case(**{name: float(row[name]) for name in fields}) for row in csv.DictReader(text.splitlines())]
    )
