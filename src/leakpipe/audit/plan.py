"""The attacks that an audit runs: chosen by network, batch and time, and recorded before the first of them starts."""

from collections.abc import Iterator
from dataclasses import dataclass

from leakpipe.attacks.budgets import fit_iterations
from leakpipe.attacks.observation import Observation
from leakpipe.attacks.presets import PRESETS
from leakpipe.attacks.recursive.reading import read_layers
from leakpipe.attacks.recursive.structure import read_chain
from leakpipe.attacks.timing import seconds_per_iteration
from leakpipe.errors import LeakpipeError
from leakpipe.params.attacks import AttackSettings
from leakpipe.params.defenses import DefenseSteps

MATCHING = "matching"
AS_SENT = "as-sent"  # what the client really shared
WHAT_IF_SHARE = 0.4  # of the time goes to attacks on updates that were defended afterwards
UNDER_NOISE = 1.2  # weight of total variation, times a distance that noise keeps large (docs/defenses.md)
NOISE = ("gaussian", "laplace", "dp-gaussian")


@dataclass(frozen=True)
class PlannedAttack:
    """One attack of an audit.

    Attributes:
        name: What tables call it.
        settings: All settings, with the iterations that the time allows.
        seconds: What it is expected to take.
        why: What it is for, a clause.
    """

    name: str
    settings: AttackSettings
    seconds: float
    why: str


def choose_attacks(observation: Observation, *, seconds: float, defended: int) -> list[PlannedAttack]:
    """Chooses the attacks on an update, the quickest first, so that all together take about `seconds` on one core.

    Args:
        observation: The update that the time of an iteration is measured on.
        seconds: For all attacks, those on the `defended` forms of the update included.
        defended: How many defences the update is also attacked under, by the attack `MATCHING` alone.
    """
    candidates = list(applicable_attacks(observation))
    total = sum(share for _, _, share, _ in candidates)
    alone = seconds * (1 - WHAT_IF_SHARE if defended else 1)
    planned = [
        _fit(name, settings, _seconds_per_iteration(observation, settings), alone * share / total, why)
        for name, settings, share, why in candidates
    ]
    return sorted(planned, key=lambda attack: attack.seconds)


def repeat_attack(
    planned: list[PlannedAttack], observation: Observation, *, seconds: float, defended: int
) -> PlannedAttack:
    """Returns the attack on an update under one of `defended` defences that it is attacked under as well."""
    strongest = next(attack for attack in planned if attack.name == MATCHING)
    each = strongest.seconds / strongest.settings.iterations
    settings = _fit_to_noise(strongest.settings, observation.defense)
    if observation.cohort:  # of the clients' labels only granted ones are known: none can be recovered from a mean
        labels = "joint" if observation.candidate_labels is None else "granted"
        settings = settings.model_copy(update={"labels": labels})
        each = _seconds_per_iteration(observation, settings)
    settings = settings.model_copy(update={"iterations": PRESETS["bn-cosine"].settings.iterations})
    return _fit(MATCHING, settings, each, seconds * WHAT_IF_SHARE / defended, strongest.why)


def _fit_to_noise(settings: AttackSettings, defense: DefenseSteps | None) -> AttackSettings:
    """Returns the settings with less total variation where noise keeps the distance large that it is scaled by."""
    if defense is None or not any(step.kind in NOISE for step in defense.root):
        return settings
    return settings.model_copy(update={"total_variation_weight": UNDER_NOISE})


def _fit(name: str, settings: AttackSettings, each: float, seconds: float, why: str) -> PlannedAttack:
    """Returns the attack with as many iterations as fit into `seconds`, at `each` seconds an iteration."""
    iterations = min(settings.iterations, fit_iterations(seconds=seconds, each=each))
    return PlannedAttack(name, settings.model_copy(update={"iterations": iterations}), each * iterations, why)


def applicable_attacks(observation: Observation) -> Iterator[tuple[str, AttackSettings, float, str]]:
    """Yields name, settings, share of the time, and purpose of each attack that applies to an update."""
    normalised, shared = bool(observation.before.statistics), bool(observation.update.statistics)
    matching = PRESETS["bn-cosine"].settings
    matching = _fit_to_noise(matching, observation.defense)
    if not shared:
        matching = matching.model_copy(update={"batch_norm_weight": 0.0})
    if not normalised:
        matching = matching.model_copy(update={"batch_norm": "none"})
    if shared and _is_residual(observation):
        yield "recursive", PRESETS["recursive"].settings, 0.25, "solves a residual network layer by layer"
    if shared:
        alone = matching.model_copy(update={"objective_weight": 0.0, "iterations": 300})
        yield "statistics-alone", alone, 0.1, "reads the batch statistics only"
        without = matching.model_copy(update={"batch_norm_weight": 0.0, "iterations": 400})
        yield "weights-alone", without, 0.1, "reads the weight differences only"
    yield MATCHING, matching, 0.25, "searches images whose training explains the whole update"
    elsewhere = matching.model_copy(update={"start": "noise"})
    yield f"{MATCHING}-2", elsewhere, 0.25, "the same from a start of noise: do both end at one image?"
    published = PRESETS["inverting-gradients"].settings
    yield "inverting-gradients", published, 0.15, "the attack of Geiping 2020, which assumes frozen batch normalisation"


def _is_residual(observation: Observation) -> bool:
    if observation.candidates > 1:
        return False
    try:
        read_layers(observation, read_chain(observation.before.module))
    except LeakpipeError:
        return False
    return True


def _seconds_per_iteration(observation: Observation, settings: AttackSettings) -> float:
    """Returns the time of one iteration, measured; of a recursive inversion that of the matching search, roughly."""
    searched = PRESETS["bn-cosine"].settings if settings.method == "recursive" else settings
    return seconds_per_iteration(observation, searched)
