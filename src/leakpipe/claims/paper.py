"""The claims of Hatamizadeh et al. 2023 as checks."""

from dataclasses import replace

from leakpipe.claims.evidence import Estimate, Evidence, UntestedError, difference
from leakpipe.claims.questions import Answer, Question, ask_difference, ask_gain
from leakpipe.claims.rules import ACCURACY_MARGIN, INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, Rule
from leakpipe.params.claims import ClaimsParams
from leakpipe.tables.verdicts import LEAK_MARGIN
from leakpipe.tables.wording import CANNOT_TELL

PAPER = "Hatamizadeh et al., IEEE TMI 2023"
MORE = Rule(LEAK_MARGIN, above=REPRODUCED, below=NOT_REPRODUCED)
LEAKS = replace(MORE, failure="effort")
FAILS = Rule(LEAK_MARGIN, above=NOT_REPRODUCED, below=REPRODUCED, failure="effort")
SILENT = replace(FAILS, failure="explained")
GAINS_NOTHING = replace(FAILS, failure=None)
COSTS = Rule(ACCURACY_MARGIN, above=REPRODUCED, below=NOT_REPRODUCED)


def list_paper_claims(roles: ClaimsParams) -> list[Question]:
    """The claims that the roles let one judge: those about attacks for the paper's attack and for the strongest one."""
    attacks = [name for name in (roles.paper_attack, roles.attack) if name]
    strong = [*attacks, *roles.further_attacks]
    return [
        *(_fails(name, roles.high_risk) for name in roles.earlier_attacks),
        *(_leaks(name, roles.high_risk) for name in strong),
        *(_beats(roles.paper_attack, name, roles.high_risk) for name in roles.earlier_attacks if roles.paper_attack),
        *(_leaks_every_round(name, roles.high_risk) for name in strong),
        *(_low_risk_gives_nothing(name, roles.low_risk) for name in attacks if roles.low_risk),
        *(question for name in attacks for question in _contrasts(name, roles)),
        *(_noise_removes(name, roles.high_risk) for name in strong),
        _noise_costs(roles.attack, roles.high_risk),
    ]


def _fails(attack: str, client: str) -> Question:
    return ask_gain(
        FAILS,
        attack,
        client,
        id=f"{attack}-fails",
        sentence=f"{attack}, an attack published before the paper, fails on a client that trains with batch "
        f"normalisation in training mode ({client}).",
        source=f"{PAPER}: earlier attacks fail where batch normalisation is in training mode and its running "
        "statistics are sent.",
    )


def _leaks(attack: str, client: str) -> Question:
    return ask_gain(
        LEAKS,
        attack,
        client,
        id=f"{attack}-leaks",
        sentence=f"The high-risk client ({client}) leaks to {attack}.",
        source=f"{PAPER}: an attack that matches the client's own BN statistics works; RDLV 0.50 at site-9.",
    )


def _beats(attack: str, earlier: str, client: str) -> Question:
    return ask_difference(
        MORE,
        attack,
        earlier,
        client,
        id=f"{attack}-beats-{earlier}",
        sentence=f"{attack} gets more out of the high-risk client ({client}) than {earlier}.",
        source=f"{PAPER}: its attack works where earlier ones fail.",
    )


def _leaks_every_round(attack: str, client: str) -> Question:
    def answer(evidence: Evidence) -> Answer:
        found = [evidence.gain(attack, client, defense=evidence.undefended, round=each) for each in evidence.rounds]
        smallest = min(found, key=lambda each: each.mean)
        return Answer.by_all(LEAKS, found, smallest, hoped=REPRODUCED)

    return Question(
        id=f"{attack}-leaks-in-every-round",
        sentence=f"The high-risk client ({client}) leaks to {attack} in every round, early and late.",
        source=f"{PAPER}: RDLV of site-9 0.70, 0.50, 0.42 and 0.56 in rounds 20, 40, 60 and 80.",
        statistic=f"SSIM gain over the prior of {attack} on {client}, without noise, of each captured round by itself; "
        "shown first is the round with the smallest mean.",
        rule=LEAKS.explain_all("captured round", hoped=REPRODUCED),
        answer=answer,
    )


def _low_risk_gives_nothing(attack: str, clients: tuple[str, ...]) -> Question:
    def answer(evidence: Evidence) -> Answer:
        found = [evidence.gain(attack, client, defense=evidence.undefended) for client in clients]
        largest = max(found, key=lambda each: each.mean)
        return Answer.by_all(SILENT, found, largest, hoped=REPRODUCED)

    return Question(
        id=f"{attack}-no-leak-of-low-risk",
        sentence=f"No leak of clients with several images ({', '.join(clients)}) to {attack} is found.",
        source=f"{PAPER}: only the high-risk client leaks; RDLV −0.04 at site-1, −0.09 at site-5.",
        statistic=f"SSIM gain over the prior of {attack}, without noise, of each of these clients by itself; shown "
        "first is the client with the largest mean.",
        rule=SILENT.explain_all("client", hoped=REPRODUCED),
        answer=answer,
    )


def _contrasts(attack: str, roles: ClaimsParams) -> list[Question]:
    pairs = {
        "more images": roles.more_images,
        "larger batches": roles.larger_batches,
        "more local steps": roles.more_steps,
    }
    return [_contrast(attack, what, *pair) for what, pair in pairs.items() if pair]


def _contrast(attack: str, what: str, less: str, more: str) -> Question:
    def answer(evidence: Evidence) -> Answer:
        both = [evidence.gains(attack, client, defense=evidence.undefended) for client in (less, more)]
        found = difference(f"{attack}: {less} minus {more} without noise", *both)
        others = [evidence.gain(attack, client, defense=evidence.undefended) for client in (less, more)]
        return Answer.by(MORE, found, others)

    return Question(
        id=f"{attack}-{what.replace(' ', '-')}-leak-less",
        sentence=f"With {what}, less leaks to {attack} ({less} against {more}).",
        source=f"{PAPER}: less leaks with more images, larger batches and more local iterations.",
        statistic=f"SSIM gain over the prior of {attack} on {less} minus that on {more}, without noise, within draws.",
        rule=str(MORE),
        answer=answer,
    )


def _noise_removes(attack: str, client: str) -> Question:
    def answer(evidence: Evidence) -> Answer:
        found = _under_noise(evidence, attack, client)
        silent = _find_silence(evidence, attack, client)
        others = [evidence.gain(attack, client, defense=evidence.undefended), *found.values()]
        ordered = list(found)
        rests = [found[defense] for defense in ordered[ordered.index(silent or ordered[-1]) :]]
        judged = Answer.by_all(SILENT, rests, rests[0], hoped=REPRODUCED)
        return replace(judged, others=others)

    return Question(
        id=f"no-leak-to-{attack}-under-noise",
        sentence=f"Under enough noise on the update, no leak of the high-risk client ({client}) to {attack} is found.",
        source=f"{PAPER}: RDLV of site-9 falls from 0.39 at σ0 = 20 to 0.00 at σ0 = 25.",
        statistic=f"SSIM gain over the prior of {attack} on {client} at each tested σ0; shown first is the smallest "
        "from which on no leak is found, or else the largest tested.",
        rule=f"{REPRODUCED}: the whole 95 % interval lies at or below {LEAK_MARGIN:g} at some tested σ0 and at every "
        f"larger one; {NOT_REPRODUCED}: it lies wholly above at the largest; {SILENT.explain_doubt()}; {INCONCLUSIVE}: "
        "otherwise. Not tested where there is no leak without noise",
        answer=answer,
    )


def _noise_costs(attack: str, client: str) -> Question:
    def answer(evidence: Evidence) -> Answer:
        silent = _find_silence(evidence, attack, client)
        if not silent:
            raise UntestedError(f"a tested σ0 from which on {attack} gains nothing on {client}")
        found = evidence.accuracy_loss(silent)
        others = [evidence.accuracy_loss(defense) for defense in evidence.noises(attack, client=client)]
        return Answer.by(COSTS, found, others)

    return Question(
        id="noise-costs-accuracy",
        sentence=f"The noise under which {attack} gains nothing costs accuracy.",
        source=f"{PAPER}: test accuracy falls from 0.97 without noise to 0.92 at σ0 = 25.",
        statistic="Test accuracy after the last round without noise minus that at the smallest tested σ0 from which on "
        f"the whole 95 % interval of the SSIM gain of {attack} on {client} lies at or below {LEAK_MARGIN:g}, within "
        "draws.",
        rule=str(COSTS),
        answer=answer,
    )


def _under_noise(evidence: Evidence, attack: str, client: str) -> dict[str, Estimate]:
    """Gains under every tested amount of noise, smallest first, where there is a leak that noise could remove."""
    undefended = evidence.gain(attack, client, defense=evidence.undefended)
    if MORE.judge(undefended) not in (REPRODUCED, CANNOT_TELL):  # too few draws are said of each noise
        raise UntestedError(f"a leak of {client} to {attack} without noise, that noise could remove")
    noises = evidence.noises(attack, client=client)
    if not noises:
        raise UntestedError(f"attack {attack} on {client} under noise")
    return {defense: evidence.gain(attack, client, defense=defense) for defense in noises}


def _find_silence(evidence: Evidence, attack: str, client: str) -> str | None:
    """The smallest tested noise from which on the attack gains nothing, whatever it explains."""
    silent = None
    for defense, found in reversed(_under_noise(evidence, attack, client).items()):
        if GAINS_NOTHING.judge(found) != REPRODUCED:
            break
        silent = defense
    return silent
