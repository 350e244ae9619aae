"""Rules by which verdicts follow from estimates. Margins were set before any claim was judged, not tuned to one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from leakpipe.claims.evidence import FEWEST_DRAWS, Estimate
from leakpipe.tables.verdicts import EXPLAINS
from leakpipe.tables.wording import CANNOT_TELL

REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
INCONCLUSIVE, NOT_TESTED = "inconclusive", "not tested"

ACCURACY_MARGIN = 0.01
"""Test accuracy whose loss counts as a cost: one percentage point, the last digit of the paper's own accuracies."""


FEW = f"fewer than {FEWEST_DRAWS} draws"
WITHOUT = {
    "explained": f"the attack explains less than {100 * EXPLAINS:.0f} % of the update in some round and draw, or that "
    "is not measured",
    "effort": "the attack ran fewer iterations than it was published with",
}


@dataclass(frozen=True)
class Rule:
    """A verdict by where the 95 % interval of a mean lies.

    Attributes:
        margin: The line.
        above: Verdict where the whole interval lies above the line.
        below: Verdict where it lies wholly at or below.
        failure: What makes `below` count where it rests on an attack's failure, which by itself says nothing: that the
            attack `explained` the update, for what is said of a client, or its published `effort`, for what is said of
            the attack. None where it rests on something else.
    """

    margin: float
    above: str
    below: str
    failure: Literal["explained", "effort"] | None = None

    def judge(self, estimate: Estimate) -> str:
        """Returns the verdict by one mean."""
        if self.doubt(estimate):
            return CANNOT_TELL
        if estimate.low > self.margin:
            return self.above
        return self.below if estimate.high <= self.margin else INCONCLUSIVE

    def doubt(self, estimate: Estimate) -> str | None:
        """Returns what is missing for another verdict than `cannot tell`; None where nothing is."""
        if estimate.few or estimate.high > self.margin:
            return estimate.few
        if self.failure == "explained" and not estimate.explained >= EXPLAINS:
            return f"an attack that explains the update: {estimate.of}, {_share(estimate.explained)} is explained"
        if self.failure == "effort" and not estimate.effort >= 1:
            return f"the published iterations: {estimate.of}, {_share(estimate.effort)} of them"
        return None

    def judge_all(self, estimates: Sequence[Estimate], *, hoped: str) -> str:
        """Returns the verdict that is hoped for if all means give it, the opposite one if any gives that."""
        opposite = self._opposite(hoped)
        verdicts = {self.judge(estimate) for estimate in estimates}
        if opposite in verdicts:
            return opposite
        if verdicts == {hoped}:
            return hoped
        return CANNOT_TELL if CANNOT_TELL in verdicts else INCONCLUSIVE

    def explain_all(self, what: str, *, hoped: str) -> str:
        """Says in words what `judge_all` does."""
        sides = ("above", "wholly at or below") if hoped == self.above else ("at or below", "wholly above")
        return (
            f"{hoped}: the whole 95 % interval lies {sides[0]} {self.margin:g} for every {what}; "
            f"{self._opposite(hoped)}: it lies {sides[1]} for any; {self.explain_doubt()}; {INCONCLUSIVE}: otherwise"
        )

    def explain_doubt(self) -> str:
        """Says in words when the verdict is `cannot tell`."""
        instead = f", or, in place of {self.below}, where {WITHOUT[self.failure]}" if self.failure else ""
        return f"{CANNOT_TELL}: {FEW}{instead}"

    def _opposite(self, verdict: str) -> str:
        return self.below if verdict == self.above else self.above

    def __str__(self) -> str:
        return (
            f"{self.above}: the whole 95 % interval lies above {self.margin:g}; {self.below}: it lies wholly at or "
            f"below; {self.explain_doubt()}; {INCONCLUSIVE}: otherwise"
        )


@dataclass(frozen=True)
class TwoSidedRule:
    """A verdict on a difference: which of two is larger by more than a margin, if any.

    Attributes:
        margin: The difference that counts.
        first: Verdict where the whole interval lies above it.
        second: Verdict where it lies below its negative.
        alike: Verdict where it lies between the two.
    """

    margin: float
    first: str
    second: str
    alike: str

    def judge(self, estimate: Estimate) -> str:
        """Returns the verdict by one mean difference."""
        if self.doubt(estimate):
            return CANNOT_TELL
        if estimate.low > self.margin:
            return self.first
        if estimate.high < -self.margin:
            return self.second
        return self.alike if -self.margin <= estimate.low and estimate.high <= self.margin else INCONCLUSIVE

    def doubt(self, estimate: Estimate) -> str | None:
        """Returns what is missing for another verdict than `cannot tell`; None where nothing is."""
        return estimate.few

    def __str__(self) -> str:
        return (
            f"{self.first}: the whole 95 % interval lies above {self.margin:g}; {self.second}: it lies wholly below "
            f"−{self.margin:g}; {self.alike}: it lies between the two; {CANNOT_TELL}: {FEW}; {INCONCLUSIVE}: "
            "otherwise"
        )


def _share(value: float) -> str:
    """`12 %`, or `an unknown share`."""
    return "an unknown share" if math.isnan(value) else f"{100 * value:.0f} %"
