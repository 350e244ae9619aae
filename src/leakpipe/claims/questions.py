"""Questions to the tables: each claim with its statistic and its rule, written down before there is a number."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from leakpipe.claims.evidence import Estimate, Evidence, difference
from leakpipe.claims.rules import Rule, TwoSidedRule
from leakpipe.tables.wording import CANNOT_TELL


@dataclass(frozen=True)
class Answer:
    """The answer of the tables to a question.

    Attributes:
        verdict: In the words of its rule.
        estimate: The number that it rests on.
        others: Further numbers for the reader, which the verdict may rest on as well.
        missing: What is missing where the verdict is `cannot tell`.
    """

    verdict: str
    estimate: Estimate
    others: Sequence[Estimate] = ()
    missing: str | None = None

    @classmethod
    def by(cls, rule: Rule | TwoSidedRule, estimate: Estimate, others: Sequence[Estimate] = ()) -> "Answer":
        """Judges one mean."""
        return cls(rule.judge(estimate), estimate, others, rule.doubt(estimate))

    @classmethod
    def by_all(cls, rule: Rule, estimates: Sequence[Estimate], first: Estimate, *, hoped: str) -> "Answer":
        """Judges several means, of which one is shown first."""
        verdict = rule.judge_all(estimates, hoped=hoped)
        doubts = [doubt for doubt in map(rule.doubt, estimates) if doubt]
        return cls(verdict, first, estimates, doubts[0] if verdict == CANNOT_TELL else None)


@dataclass(frozen=True)
class Question:
    """A claim or an open question.

    Attributes:
        id: Short name, unique.
        sentence: What is claimed or asked.
        source: Who says so, with published numbers where there are any.
        statistic: What is computed, on which rows.
        rule: How the verdict follows from it.
        answer: Computes it; raises `UntestedError` where the tables do not hold what it takes.
    """

    id: str
    sentence: str
    source: str
    statistic: str
    rule: str
    answer: Callable[[Evidence], Answer]


def ask_gain(rule: Rule, attack: str, client: str, *, id: str, sentence: str, source: str) -> Question:
    """A question about the SSIM that an attack gains over the prior on a client, without noise.

    Args:
        rule: How the verdict follows from the mean gain.
        attack: Name of the attack.
        client: Name of the client.
        id: Short name, unique.
        sentence: What is claimed or asked.
        source: Who says so.
    """

    def answer(evidence: Evidence) -> Answer:
        found = evidence.gain(attack, client, defense=evidence.undefended)
        return Answer.by(rule, found)

    statistic = f"SSIM gain over the prior of {attack} on {client}, without noise."
    return Question(id, sentence, source, statistic, str(rule), answer)


def ask_difference(
    rule: Rule | TwoSidedRule, first: str, second: str, client: str, *, id: str, sentence: str, source: str
) -> Question:
    """A question about how much more one attack gains than another on a client, without noise, within draws."""

    def answer(evidence: Evidence) -> Answer:
        gains = [evidence.gains(attack, client, defense=evidence.undefended) for attack in (first, second)]
        found = difference(f"{first} minus {second} on {client} without noise", *gains)
        return Answer.by(rule, found)

    statistic = f"SSIM of {first} minus SSIM of {second} on {client}, without noise, within draws."
    return Question(id, sentence, source, statistic, str(rule), answer)
