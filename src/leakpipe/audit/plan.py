"""The attacks that an audit runs: chosen by network, batch and time, and recorded before the first of them starts."""

from collections.abc import Iterator, Mapping

import torch

from leakpipe.attacks.budgets import fit_iterations
from leakpipe.attacks.labels import recover_label_counts
from leakpipe.attacks.objective import Objective
from leakpipe.attacks.observation import Observation, usable_settings
from leakpipe.attacks.presets import PRESETS
from leakpipe.attacks.problem import believed_training
from leakpipe.attacks.recursive.reading import read_layers
from leakpipe.attacks.recursive.structure import read_chain
from leakpipe.attacks.timing import seconds_per_iteration
from leakpipe.errors import LeakpipeError
from leakpipe.params.attack_settings import AttackSettings
from leakpipe.params.audit import AS_SENT, AuditPlan, PlannedAttack
from leakpipe.params.defenses import DefenseSteps

MATCHING = "matching"
STATISTICS_ALONE, WEIGHTS_ALONE = "statistics-alone", "weights-alone"
WHAT_IF_EACH = 0.2  # of the time goes to the attack under each defence that is tried
WHAT_IF_MOST = 0.4  # and to all of them together
RECURSIVE_STEP = 0.1  # all of its time by its iterations of L-BFGS, over one of the matching search (ResNet-18, 64×64)
CYCLED_STEP = 0.8  # the same where it is repeated: no max-pool, or bottlenecks (ResNet-20, 32×32)
UNDER_NOISE = 1.2  # weight of total variation, times a distance that noise keeps large (docs/defenses.md)
NOISE = ("gaussian", "laplace", "dp-gaussian")


class StepTimes:
    """The seconds that an iteration of each attack takes on this machine: measured once.

    An attack's iterations follow from it. Where a plan is made again, known times keep what did not change as it was.

    Args:
        known: Times by attack, images and steps.
    """

    def __init__(self, known: Mapping[str, float] | None = None) -> None:
        self.known = dict(known or {})

    def measure(self, name: str, observation: Observation, settings: AttackSettings) -> float:
        """Returns the time of one iteration; that of a recursive inversion is estimated by the matching search's."""
        key = f"{name}, {observation.client.images} in {observation.update.steps}"
        if key not in self.known:
            if settings.method == "recursive":
                chain = read_chain(observation.before.module)
                once = chain.pooled and not chain.has_bottlenecks
                step = RECURSIVE_STEP if once else CYCLED_STEP
                measured = step * seconds_per_iteration(observation, PRESETS["bn-cosine"].settings)
            else:
                measured = seconds_per_iteration(observation, settings)
            self.known[key] = measured
        return self.known[key]


def choose_attacks(
    observation: Observation, times: StepTimes, *, seconds: float, defended: int
) -> dict[str, PlannedAttack]:
    """Chooses the attacks on an update, the quickest first, so that all together take about `seconds` on one core.

    Args:
        observation: The update that the time of an iteration is measured on, if it is not known.
        times: Gets what is measured.
        seconds: For all attacks, those on the `defended` forms of the update included.
        defended: How many defences the update is also attacked under, by the attack `MATCHING` alone.
    """
    candidates = [
        (times.measure(name, observation, settings), name, _search_unknown_labels(observation, settings), share, why)
        for name, settings, share, why in applicable_attacks(observation)
    ]
    shares, left = sum(share for *_, share, _ in candidates), seconds * (1 - _share_of_what_if(defended))
    planned = {}
    # What an attack does not need, the others get: first come those that need least of their share.
    for each, name, settings, share, why in sorted(candidates, key=lambda of: of[0] * of[2].iterations / of[3]):
        planned[name] = _fit(settings, each, left * share / shares, why)
        left, shares = max(0.0, left - planned[name].seconds), shares - share
    return dict(sorted(planned.items(), key=lambda item: item[1].seconds))


def _share_of_what_if(defended: int) -> float:
    return min(WHAT_IF_MOST, WHAT_IF_EACH * defended)


def repeat_attack(
    strongest: PlannedAttack, observation: Observation, times: StepTimes, *, seconds: float, defended: int
) -> PlannedAttack:
    """Returns the attack `MATCHING` on an update under one of `defended` defences that it is attacked under as well."""
    settings = _fit_to_noise(strongest.settings, observation.defense)
    name = MATCHING
    if observation.cohort:  # of the clients' labels only granted ones are known: none can be recovered from a mean
        labels = "joint" if observation.candidate_labels is None else "granted"
        settings = settings.model_copy(update={"labels": labels})
        name = f"{MATCHING} of {len(observation.clients)} clients"
    else:
        settings = _search_unknown_labels(observation, settings)
    settings = settings.model_copy(update={"iterations": strongest.wanted})
    each = times.measure(name, observation, settings)
    return _fit(settings, each, seconds * _share_of_what_if(defended) / defended, strongest.why)


def hardly_begun(plan: AuditPlan) -> bool:
    """Returns whether no attack on an update as it was sent gets a quarter of the iterations that it wants."""
    planned = [attack for cells in plan.cells.values() for attack in cells[AS_SENT].values()]
    return all(4 * each.settings.iterations < each.wanted for each in planned)


def _fit_to_noise(settings: AttackSettings, defense: DefenseSteps | None) -> AttackSettings:
    """Returns the settings with less total variation where noise keeps the distance large that it is scaled by."""
    if defense is None or not any(step.kind in NOISE for step in defense.root):
        return settings
    return settings.model_copy(update={"total_variation_weight": UNDER_NOISE})


def _fit(settings: AttackSettings, each: float, seconds: float, why: str) -> PlannedAttack:
    """Returns the attack with as many iterations as fit into `seconds`, at `each` seconds an iteration."""
    iterations = min(settings.iterations, fit_iterations(seconds=seconds, each=each))
    fitted = settings.model_copy(update={"iterations": iterations})
    return PlannedAttack(settings=fitted, wanted=settings.iterations, seconds=each * iterations, why=why)


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
    elif shared and _gives_row_spaces(observation):
        yield "row-space", PRESETS["row-space"].settings, 0.15, "looks for images made of the rows of weight gradients"
    if shared:
        alone = matching.model_copy(update={"objective_weight": 0.0, "iterations": 300})
        yield STATISTICS_ALONE, alone, 0.1, "reads the batch statistics only"
        without = matching.model_copy(update={"batch_norm_weight": 0.0, "iterations": 400})
        yield WEIGHTS_ALONE, without, 0.1, "reads the weight differences only"
    yield MATCHING, matching, 0.25, "searches images whose training explains the whole update"
    elsewhere = matching.model_copy(update={"start": "noise"})
    yield f"{MATCHING}-2", elsewhere, 0.25, "the same from a start of noise: do both end at one image?"
    published = PRESETS["inverting-gradients"].settings
    yield "inverting-gradients", published, 0.15, "the attack of Geiping 2020, which assumes frozen batch normalisation"


def _search_unknown_labels(observation: Observation, settings: AttackSettings) -> AttackSettings:
    """Has labels searched with the images where they are neither granted nor to be recovered, as of a batch by Adam."""
    if settings.method == "recursive" or observation.candidate_labels is not None or not observation.has_signal:
        return settings
    client = observation.client
    guess = torch.full((client.images, *observation.image_shape), 0.5) if client.prior is None else client.prior
    try:
        recover_label_counts(observation, guess, believed_training(observation.settings, settings))
    except LeakpipeError:
        return settings.model_copy(update={"labels": "joint"})
    return settings


def _is_residual(observation: Observation) -> bool:
    try:
        layers = read_layers(observation, read_chain(observation.before.module))
    except LeakpipeError:
        return False
    return any(layer.has_null_space for layer in layers.values())


def _gives_row_spaces(observation: Observation) -> bool:
    """Returns whether any convolution has fewer positions than output channels, and its gradient a rank to read."""
    settings, _ = usable_settings(observation, PRESETS["row-space"].settings)
    rows = Objective(observation, settings, seed=0).rows
    return rows is not None and bool(rows.spaces)
