"""How verdicts follow from estimates. The margins were chosen before any claim was judged, and are not tuned to one."""

from collections.abc import Sequence
from dataclasses import dataclass

from leakpipe.claims.evidence import Estimate

REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
INCONCLUSIVE, NOT_TESTED = "inconclusive", "not tested"

ACCURACY_MARGIN = 0.01
"""Test accuracy whose loss counts as a cost: one percentage point, the last digit of the paper's own accuracies."""


@dataclass(frozen=True)
class Rule:
    """A verdict by where the 95 % interval of a mean lies.

    Attributes:
        margin: The line.
        above: Verdict where the whole interval lies above the line.
        below: Verdict where it lies wholly at or below.
    """

    margin: float
    above: str
    below: str

    def judge(self, estimate: Estimate) -> str:
        """The verdict by one mean."""
        if estimate.low > self.margin:
            return self.above
        return self.below if estimate.high <= self.margin else INCONCLUSIVE

    def judge_all(self, estimates: Sequence[Estimate], *, hoped: str) -> str:
        """The verdict that is hoped for if all means give it, the opposite one if any gives that."""
        opposite = self._opposite(hoped)
        verdicts = {self.judge(estimate) for estimate in estimates}
        if opposite in verdicts:
            return opposite
        return hoped if verdicts == {hoped} else INCONCLUSIVE

    def explain_all(self, what: str, *, hoped: str) -> str:
        """Say in words what `judge_all` does."""
        sides = ("above", "wholly at or below") if hoped == self.above else ("at or below", "wholly above")
        return (
            f"{hoped}: the whole 95 % interval lies {sides[0]} {self.margin:g} for every {what}; "
            f"{self._opposite(hoped)}: it lies {sides[1]} for any; {INCONCLUSIVE}: otherwise"
        )

    def _opposite(self, verdict: str) -> str:
        return self.below if verdict == self.above else self.above

    def __str__(self) -> str:
        return (
            f"{self.above}: the whole 95 % interval lies above {self.margin:g}; {self.below}: it lies wholly at or "
            f"below; {INCONCLUSIVE}: otherwise"
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
        """The verdict by one mean difference."""
        if estimate.low > self.margin:
            return self.first
        if estimate.high < -self.margin:
            return self.second
        return self.alike if -self.margin <= estimate.low and estimate.high <= self.margin else INCONCLUSIVE

    def __str__(self) -> str:
        return (
            f"{self.first}: the whole 95 % interval lies above {self.margin:g}; {self.second}: it lies wholly below "
            f"−{self.margin:g}; {self.alike}: it lies between the two; {INCONCLUSIVE}: otherwise"
        )
