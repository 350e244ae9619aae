"""Recognition of a client under noise, of which similar pictures say nothing."""

from leakpipe.claims.evidence import Evidence, UntestedError
from leakpipe.claims.questions import Answer, Question
from leakpipe.claims.rules import Rule
from leakpipe.params.claims import ClaimsParams
from leakpipe.tables.wording import NOTHING_FOUND

RECOGNISED = Rule(0.05, above="recognised", below=NOTHING_FOUND, failure="explained")
"""A share of reconstructions above chance, drawn at the same 0.05 as a leak by SSIM."""


def list_recognition_questions(roles: ClaimsParams) -> list[Question]:
    """The questions about identifiability that the roles let one ask."""
    attacks = [name for name in (roles.paper_attack, roles.attack) if name]
    return [_recognised(name, roles.high_risk) for name in (*attacks, *roles.further_attacks)]


def _recognised(attack: str, client: str) -> Question:
    def answer(evidence: Evidence) -> Answer:
        noises = evidence.noises(attack, client=client)
        if not noises:
            raise UntestedError(f"attack {attack} on {client} under noise")
        found = [evidence.recognised(attack, client, defense=name) for name in (evidence.undefended, *noises)]
        return Answer.by(RECOGNISED, found[-1], found[:-1])

    return Question(
        id=f"recognised-by-{attack}-under-noise",
        sentence=f"Under the most noise that was tested, is the high-risk client ({client}) recognised among all "
        f"clients' images from what {attack} rebuilds?",
        source="Hatamizadeh et al., IEEE TMI 2023, define image identifiability precision (IIP); the answer is open.",
        statistic=f"Share of reconstructions of {attack} on {client} whose nearest neighbour among all clients' "
        "training images is their own, by the embedder that recognises most, minus what guessing recognises, at the "
        "largest tested σ0; further down at the others and without noise.",
        rule=str(RECOGNISED),
        answer=answer,
    )
