"""Gradient inversion, whole: from an observation and settings to images, whatever the preset."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

import torch
from torch import Tensor

from leakpipe.attacks.checkpoint import Checkpoint
from leakpipe.attacks.labels import labels_of_counts, recover_label_counts, recover_label_set
from leakpipe.attacks.objective import Objective
from leakpipe.attacks.observation import Observation, usable_settings
from leakpipe.attacks.problem import believed_training
from leakpipe.attacks.readings import alone, inflation, prediction_error
from leakpipe.attacks.reconstruction import Reconstruction
from leakpipe.attacks.rehearsal import rehearse
from leakpipe.attacks.search import Search
from leakpipe.attacks.search_state import SearchState
from leakpipe.errors import LeakpipeError
from leakpipe.params.attack_settings import AttackSettings

LABEL_ROUNDS = 3  # times that ambiguous labels are counted again with better guesses of the images
LEARNED_SHARE = 5 / 9  # steps in which an inverse is learned, for each iteration of a recursive inversion's search
TRIAL = (100, 500)  # least and most iterations of an attack that tries one guess of the labels (20 were too few)


def invert(
    observation: Observation,
    settings: AttackSettings,
    *,
    seed: int,
    on_iteration: Callable[[int, float], None] = lambda _iteration, _objective: None,
    checkpoint: Checkpoint | None = None,
) -> Reconstruction:
    """Searches the images whose simulated local training explains the observed update.

    `leakpipe.attacks.objective.Objective` is what the search minimises. With `settings.method` "recursive" feature maps
    are recovered by linear algebra first (`leakpipe.attacks.recursive`), and images whose maps these are searched.

    Args:
        seed: Fixes all random numbers: starts, smoothing.
        on_iteration: Called after every step with the step's number (from 1) and the objective it reached.
        checkpoint: Where the search is saved now and then, and continued from if it is there; an interrupted
            and continued search ends with the same bytes as an undisturbed one. A recursive inversion is not saved.

    Raises:
        LeakpipeError: The settings need what the observation lacks, or the network cannot be simulated
            (`leakpipe.attacks.rehearsal`).
    """
    if settings.method == "recursive":
        rehearsed = rehearse(observation)
        found = _invert_recursively(observation, settings, seed=seed, on_iteration=on_iteration)
        return replace(found, notes=[*rehearsed, *found.notes])
    both = observation.cohort and observation.has_signal and settings.objective_weight > 0
    run = _read_both_ways if both else _search
    found = run(observation, settings, seed=seed, on_iteration=on_iteration, checkpoint=checkpoint)
    own = observation.client.images  # an aggregate's candidates of other clients come after these
    companions = found.images[own:] if len(found.images) > own else None
    return replace(found, images=found.images[:own], labels=found.labels[:own], companions=companions)


def _as_believed(observation: Observation, settings: AttackSettings) -> Observation:
    """Returns an observation whose client trains as the attack's settings say."""
    if settings.training is None:
        return observation
    return replace(observation, settings=replace(observation.settings, training=settings.training))


def _search(
    observation: Observation,
    settings: AttackSettings,
    *,
    seed: int,
    on_iteration: Callable[[int, float], None],
    checkpoint: Checkpoint | None,
) -> Reconstruction:
    """Returns all candidates, those of the attacked client first."""
    settings, adapted = usable_settings(observation, settings)
    notes = [*rehearse(_as_believed(observation, settings)), *adapted]
    labels, how = _choose_labels(observation, settings, seed=seed)
    search = Search(observation, settings, labels, seed=seed)
    saved = checkpoint.load(observation.before.device) if checkpoint else None
    state = saved if saved is not None and search.fits(saved) else search.start()
    state = _run(search, state, on_iteration, checkpoint)
    images, taken, objective = search.result(state)
    nothing = ["The search found nothing better than its start."] if search.found_nothing(state) else []
    return Reconstruction(
        images=images,
        labels=taken,
        objective=objective if math.isfinite(objective) else None,
        explained=search.explained(state),
        iterations=state.iteration,
        stopped=state.stopped,
        curves=state.curves,
        notes=[*notes, *how, *search.objective.notes, *nothing, *state.notes],
    )


def _read_both_ways(
    observation: Observation,
    settings: AttackSettings,
    *,
    seed: int,
    on_iteration: Callable[[int, float], None],
    checkpoint: Checkpoint | None,
) -> Reconstruction:
    """Reads an aggregate in both ways (`leakpipe.attacks.readings`) and keeps what predicts the update better."""
    usable_settings(observation, settings)  # an attack that is unfit for aggregates is an error, not a choice
    one = alone(observation)
    if math.isinf(inflation(observation)):
        found = _search(one, settings, seed=seed, on_iteration=on_iteration, checkpoint=checkpoint)
        many = f"{observation.candidates} images of {len(observation.clients)} clients"
        note = f"The aggregate was read as one client's update: {many} have more pixels than it has values."
        return replace(found, notes=[note, *found.notes])
    found = _search(one, settings, seed=seed, on_iteration=lambda *_: None, checkpoint=None)
    joint = _search(observation, settings, seed=seed, on_iteration=on_iteration, checkpoint=checkpoint)
    single, together = (
        prediction_error(seen, settings, result.images, result.labels)
        for seen, result in ((one, found), (observation, joint))
    )
    kept, how = (found, "one client's update") if single < together else (joint, "that of all its clients")
    note = f"The aggregate was read as {how}: the prediction error is {single:.3g} of one, {together:.3g} of all."
    return replace(kept, notes=[*kept.notes, note])


def _invert_recursively(
    observation: Observation,
    settings: AttackSettings,
    *,
    seed: int,
    on_iteration: Callable[[int, float], None],
) -> Reconstruction:
    from leakpipe.attacks.recursive.image import Candidate, ImageSettings  # SciPy's solvers take a while to import
    from leakpipe.attacks.recursive.invert import RecursiveSettings, invert_recursively
    from leakpipe.attacks.recursive.learned import LearnedSettings

    believed = believed_training(observation.settings, settings)
    observation = replace(observation, settings=replace(observation.settings, training=believed))
    image = ImageSettings(
        total_variation=settings.total_variation_weight,
        iterations=settings.iterations,
        decay=settings.spectrum_decay,
    )
    curves: dict[str, list[float]] = {"iteration": [], "map_error": []}

    def on_stage(candidate: Candidate) -> None:
        curves["iteration"].append(candidate.iterations)
        curves["map_error"].append(candidate.error)
        on_iteration(candidate.iterations, candidate.error)

    generator = torch.Generator().manual_seed(seed)
    learned = LearnedSettings(steps=max(1, round(LEARNED_SHARE * settings.iterations)))
    found = invert_recursively(observation, RecursiveSettings(image, learned), generator, on_stage=on_stage)
    labels, how = found.labels, list[str]()
    if labels is None:
        labels, how = _choose_labels(observation, settings, seed=seed)
    else:
        how = [_note_labels(labels.bincount().tolist())]
    assert labels is not None  # the settings do not search them
    doubtful = sum(layer.doubtful for layer in found.layers)
    counted = f"Maps of {len(found.layers)} convolutions were recovered; {doubtful} of their units may be on or off."
    return Reconstruction(
        images=found.images,
        labels=labels,
        objective=found.map_error if math.isfinite(found.map_error) else None,
        explained=explained_of_prior(observation, settings, found.images, labels, seed=seed),
        iterations=int(curves["iteration"][-1]) if curves["iteration"] else 0,
        stopped="finished",
        curves=curves,
        notes=[*([counted] if found.layers else []), *found.notes, *how],
        layers=[asdict(layer) for layer in found.layers],
    )


def explained_of_prior(
    observation: Observation, settings: AttackSettings, images: Tensor, labels: Tensor, *, seed: int
) -> float | None:
    """The share of the prior image's distance to the update that `images` remove, as `Search.explained`.

    Args:
        images: The attacked client's, like the prior.
        labels: Class indices that their local training is simulated with.

    Returns:
        0 where the images are the prior; None where a distance is not finite.
    """
    prior = observation.client.prior
    assert prior is not None  # the attack has started there
    if torch.equal(images, prior):
        return 0.0
    objective = Objective(observation, settings.model_copy(update={"engine": "autograd"}), seed=seed)
    with torch.no_grad():
        start, best = (objective.evaluate(each, labels).terms["update_distance"] for each in (prior, images))
    if not (math.isfinite(start) and math.isfinite(best) and start > 0):
        return None
    return min(1.0, max(0.0, 1 - best / start))


def _run(
    search: Search, state: SearchState, on_iteration: Callable[[int, float], None], checkpoint: Checkpoint | None
) -> SearchState:
    try:
        while not state.stopped:
            state = search.advance(state)
            on_iteration(state.iteration, state.reached)
            if checkpoint is not None:
                checkpoint.save_if_due(state)
    except KeyboardInterrupt:
        if checkpoint is not None:
            checkpoint.save(state)
        raise
    return state


def _choose_labels(observation: Observation, settings: AttackSettings, *, seed: int) -> tuple[Tensor | None, list[str]]:
    """Labels to attack with (None: they are searched too), and a note where they were recovered."""
    granted = observation.candidate_labels
    if not observation.has_signal:  # nothing to recover them from, and what is left to match does not depend on them
        unknown = torch.zeros(observation.candidates, dtype=torch.int64, device=observation.before.device)
        return (unknown, ["No labels were known."]) if granted is None else (granted, [])
    if settings.labels == "granted" and granted is not None:
        return granted, []
    if observation.client.multi_label:
        return _recover_label_set(observation, settings)
    if settings.labels == "joint":
        return None, []
    counts = _recover_labels(observation, settings, seed=seed)
    return labels_of_counts(counts).to(observation.before.device), [_note_labels(counts)]


def _note_labels(counts: Sequence[int]) -> str:
    counted = ", ".join(f"{count} of class {label}" for label, count in enumerate(counts) if count)
    return f"Labels were recovered from the head's gradient: {counted}."


def _recover_label_set(observation: Observation, settings: AttackSettings) -> tuple[Tensor, list[str]]:
    if settings.labels == "joint":
        raise LeakpipeError("labels: joint searches one class for each image, but images have several; take recovered")
    labels = recover_label_set(observation, believed_training(observation.settings, settings))
    found = ", ".join(map(str, labels[0].nonzero().flatten().tolist())) or "none"
    return labels, [f"The image's labels were recovered from the head's gradient: {found}."]


def _recover_labels(observation: Observation, settings: AttackSettings, *, seed: int) -> tuple[int, ...]:
    """Counts the labels; where it is a close call, keeps the counts whose short attack explains the update best."""
    client = observation.client
    shape = (client.images, *observation.image_shape)
    guess = client.prior if client.prior is not None else torch.full(shape, 0.5, device=observation.before.device)
    iterations = min(max(TRIAL[0], settings.iterations // 5), TRIAL[1])
    trial = settings.model_copy(update={"iterations": iterations, "restarts": 1, "rungs": 1, "group_weight": 0.0})
    chosen: tuple[int, ...] = ()
    for _ in range(LABEL_ROUNDS):
        guesses = recover_label_counts(observation, guess, believed_training(observation.settings, settings)).guesses
        if len(guesses) == 1:
            return guesses[0]
        tried = []
        for counts in guesses:
            search = Search(observation, trial, labels_of_counts(counts).to(guess.device), seed=seed)
            images, _, objective = search.result(_run(search, search.start(), lambda *_: None, None))
            tried.append((objective, counts, images))
        _, best, guess = min(tried, key=lambda attempt: attempt[:2])
        if best == chosen:
            break
        chosen = best
    return chosen
