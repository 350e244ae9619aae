"""An untested question: which part of an update leaks, weight differences or BN statistics."""

from leakpipe.claims.evidence import Evidence, UntestedError, difference
from leakpipe.claims.questions import Answer, Question, ask_difference, ask_gain
from leakpipe.claims.rules import Rule, TwoSidedRule
from leakpipe.params.claims import ClaimsParams
from leakpipe.tables.verdicts import LEAK_MARGIN
from leakpipe.tables.wording import LEAKS, NOTHING_FOUND

SOURCE = "An open question: the paper gives no answer."
ALONE = Rule(LEAK_MARGIN, above=LEAKS, below=NOTHING_FOUND, failure="explained")
LARGER = TwoSidedRule(LEAK_MARGIN, first="weights", second="statistics", alike="alike")
ADDS = Rule(LEAK_MARGIN, above="statistics add to the leak", below="statistics add nothing")


def list_part_questions(roles: ClaimsParams) -> list[Question]:
    """The questions about parts of an update that the roles let one ask."""
    weights, statistics, client = roles.weights_attack, roles.statistics_attack, roles.high_risk
    questions = []
    if weights:
        questions.append(_leaks_alone("weights", "weight differences", weights, client))
    if statistics:
        questions.append(_leaks_alone("statistics", "BN statistics", statistics, client))
    if weights and statistics:
        questions.append(_leaks_more(weights, statistics, client))
    if weights:
        questions += [
            _adds(roles.attack, weights, client),
            _adds_under_noise(roles.attack, weights, statistics, client),
        ]
    return questions


def _leaks_alone(part: str, name: str, attack: str, client: str) -> Question:
    return ask_gain(
        ALONE,
        attack,
        client,
        id=f"{part}-alone",
        sentence=f"Do the {name} of an update leak by themselves ({client})?",
        source=SOURCE,
    )


def _leaks_more(weights: str, statistics: str, client: str) -> Question:
    return ask_difference(
        LARGER,
        weights,
        statistics,
        client,
        id="which-part-leaks-more",
        sentence=f"Which part of an update leaks more, weight differences or BN statistics ({client})?",
        source=SOURCE,
    )


def _adds(both: str, weights: str, client: str) -> Question:
    return ask_difference(
        ADDS,
        both,
        weights,
        client,
        id="statistics-add",
        sentence=f"Do BN statistics add to what the weight differences leak ({client})?",
        source=SOURCE,
    )


def _adds_under_noise(both: str, weights: str, statistics: str | None, client: str) -> Question:
    def answer(evidence: Evidence) -> Answer:
        noises = evidence.noises(both, weights, client=client)
        if not noises:
            raise UntestedError(f"attacks {both} and {weights} on {client} under the same noise")
        added = [
            difference(
                f"{both} minus {weights} on {client} {evidence.describe(defense)}",
                *(evidence.gains(attack, client, defense=defense) for attack in (both, weights)),
            )
            for defense in noises
        ]
        alone = [
            evidence.gain(attack, client, defense=defense)
            for attack in (both, weights, statistics)
            if attack
            for defense in evidence.noises(both, weights, attack, client=client)
        ]
        return Answer.by(ADDS, added[0], [*added, *alone])

    return Question(
        id="statistics-add-under-noise",
        sentence=f"How much of what leaks under noise comes through BN statistics ({client})?",
        source=SOURCE,
        statistic=f"SSIM of {both} minus SSIM of {weights} on {client}, within draws, at the smallest σ0 under which "
        "both were run; further down at the others.",
        rule=str(ADDS),
        answer=answer,
    )
