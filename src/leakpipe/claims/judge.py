"""From tables to verdicts: every question answered, as JSON."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from leakpipe.claims.evidence import FEWEST_DRAWS, Estimate, Evidence, UntestedError
from leakpipe.claims.paper import list_paper_claims
from leakpipe.claims.parts import list_part_questions
from leakpipe.claims.questions import Question
from leakpipe.claims.recognition import list_recognition_questions
from leakpipe.claims.rules import ACCURACY_MARGIN, NOT_TESTED
from leakpipe.params.claims import ClaimsParams
from leakpipe.tables.verdicts import LEAK_MARGIN

DIGITS = 4
DEFINITIONS = {
    "gain": "SSIM of the reconstruction minus SSIM of the prior image, both against the true image.",
    "draw": "A seed: its own split, victims, initial network and noise. Each draw counts once, with its mean over "
    "images and captured rounds.",
    "interval": "95 % interval of the mean over draws, by a bootstrap of draws. It speaks of other draws from the same "
    f"data set, and is not corrected for the number of claims. Fewer than {FEWEST_DRAWS} draws give no verdict.",
    "failure": "That an attack got nothing is a property of the attack. It is evidence of a client only where the "
    "attack explained the update, and of the attack only where it ran all of its published iterations; else nobody can "
    "tell.",
    "margins": f"A gain counts above {LEAK_MARGIN:g} SSIM, a loss of accuracy above {ACCURACY_MARGIN:g}. Both come "
    "from what the paper's figures count as a leak and as a cost; they are not tuned to these results.",
}


def list_questions(roles: ClaimsParams) -> list[Question]:
    """Everything that the roles let one ask, in the order that a reader should see it; no number is known yet."""
    return [*list_paper_claims(roles), *list_recognition_questions(roles), *list_part_questions(roles)]


def judge_claims(
    leakage: pd.DataFrame,
    accuracy: pd.DataFrame,
    *,
    roles: ClaimsParams | None,
    defenses: Mapping[str, Sequence[Mapping[str, Any]]],
    identifiability: pd.DataFrame | None = None,
    published: Mapping[str, int],
) -> dict[str, Any]:
    """Judges every claim.

    Args:
        leakage: The leakage table.
        accuracy: The accuracy table.
        roles: Which attack and client plays which role; None judges nothing.
        defenses: The `defenses` section of the parameters.
        identifiability: The identifiability table, if reconstructions were looked up.
        published: Iterations that each attack was published with.

    Returns:
        JSON-serialisable: `definitions`, and `claims`, each with `id`, `sentence`, `source`, `statistic`, `rule`,
        `verdict`, `estimate` (`of`, `mean`, `low`, `high`, `draws`, `explained`, `effort`; null where it was not
        tested), `others` (more of these) and `missing` (what a verdict would take; null where there is one). The same
        tables give the same.
    """
    evidence = Evidence(leakage, accuracy, defenses, identifiability=identifiability, published=published)
    questions = list_questions(roles) if roles else []
    return {"definitions": DEFINITIONS, "claims": [_judge(question, evidence) for question in questions]}


def _judge(question: Question, evidence: Evidence) -> dict[str, Any]:
    said = {name: getattr(question, name) for name in ("id", "sentence", "source", "statistic", "rule")}
    try:
        answer = question.answer(evidence)
    except UntestedError as error:
        return {**said, "verdict": NOT_TESTED, "estimate": None, "others": [], "missing": str(error)}
    return {
        **said,
        "verdict": answer.verdict,
        "estimate": _as_json(answer.estimate),
        "others": [_as_json(each) for each in answer.others if each != answer.estimate],
        "missing": answer.missing,
    }


def _as_json(estimate: Estimate) -> dict[str, Any]:
    return {name: _as_number(value) for name, value in asdict(estimate).items()}


def _as_number(value: Any) -> Any:
    """The value with so many digits as are shown; None in place of NaN, which JSON lacks."""
    if not isinstance(value, float):
        return value
    return None if math.isnan(value) else round(value, DIGITS)
