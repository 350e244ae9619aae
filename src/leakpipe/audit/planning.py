"""From audit.yaml to the plan: every file is read, every belief rehearsed, attacks chosen; nothing is attacked yet."""

import os
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from leakpipe import __version__
from leakpipe.attacks.belief import SIGN_UNCHECKED, STEPS_UNCHECKED
from leakpipe.attacks.input_range import measure_input
from leakpipe.attacks.rehearsal import rehearse
from leakpipe.audit.inputs import (
    AuditedUpdate,
    client_of,
    granted,
    note_overlap,
    observe_audited,
    read_public,
    read_truth,
    read_update,
)
from leakpipe.audit.network import takes_other_sizes
from leakpipe.audit.plan import MATCHING, StepTimes, choose_attacks, repeat_attack
from leakpipe.audit.what_if import choose_defenses, defend, observe_defended
from leakpipe.captured.steps import COUNTED
from leakpipe.errors import LeakpipeError
from leakpipe.files.quoting import explain_braces
from leakpipe.files.storage import read_json
from leakpipe.models.any_module import active_dropout
from leakpipe.models.custom import find_source
from leakpipe.params.audit import AS_SENT, AuditParams, AuditPlan, PlannedAttack
from leakpipe.params.defenses import DefenseSteps
from leakpipe.params.reading import parse_section

Cells = dict[str, dict[str, PlannedAttack]]  # attacks by defence


def load_plan(path: Path) -> AuditPlan | None:
    """Reads a plan; None where there is none, or one of another version.

    Raises:
        LeakpipeError: The file is no plan.
    """
    if not path.exists():
        return None
    try:
        content = read_json(path)
        if content.get("version") not in (__version__, None):
            return None
        return parse_section(AuditPlan, content, source=str(path))
    except LeakpipeError as error:
        said = str(error).splitlines()  # their number, then each problem, where there are several
        first = said[0] if len(said) == 1 else f"{said[1].strip()} (and {len(said) - 2} more)"
        raise LeakpipeError(f"{first}; remove this file, and the same command plans the audit anew") from error


def written_times(params: AuditParams) -> dict[str, int]:
    """Returns when each file, and folder of images, was last written that a plan follows from.

    Another file of that name is another plan.
    """
    paths = [path for files in params.updates.values() for path in _files(files.model_dump())]
    folders = [params.public, params.client.truth, *(client.truth for client in params.clients.values())]
    paths += [*_network_source(params), *(folder for folder in folders if folder is not None)]
    return {path: Path(path).stat().st_mtime_ns for path in paths}


def _files(files: Mapping[str, Any]) -> Iterable[str]:
    return [path for name, path in files.items() if path and name != "client"]


def _network_source(params: AuditParams) -> list[str]:
    """Returns the file of the own network, for Snakemake relative to the current folder."""
    source = params.network.factory and find_source(params.network.factory)
    path = os.path.relpath(source) if source else ""
    if problem := explain_braces("network.factory", path):
        raise LeakpipeError(problem)
    return [path] if path else []


def _timed(params: AuditParams) -> dict[str, Any]:
    """Returns what the time of an iteration depends on."""
    sections = params.model_dump(include={"network", "images", "training", "client", "clients", "defense"})
    for client in (sections["client"], *sections["clients"].values()):
        client["truth"] = None
    return sections


def make_plan(params: AuditParams, *, cores: int, earlier: Iterable[AuditPlan] = ()) -> AuditPlan:
    """Reads every update, which checks it, and chooses the attacks on it; the first one decides on the defences.

    Args:
        earlier: Plans whose measured times are taken over where they are of the same network and training, so that
            attacks that an edit of audit.yaml is not about stay as they were.

    Raises:
        LeakpipeError: A file cannot be read, contradicts audit.yaml, or the network cannot be simulated.
    """
    found, doubts, public = dict[str, AuditedUpdate](), {}, read_public(params)
    for name in params.updates:
        found[name] = read_update(params, name, public)
        overlap = note_overlap(params, read_truth(params, name), public)  # refused now, not after hours
        if dropped := active_dropout(found[name].before.module):
            raise LeakpipeError(
                f"network: {dropped[0]} drops values at random, and nobody else knows the draws; set network.dropout: "
                "false, which states the belief that the client trained without"
            )
        try:
            doubts[name] = [*overlap, *_rehearse(found[name], params)]
        except LeakpipeError as error:
            raise LeakpipeError(f"updates.{name}: {error}") from error
    defenses = choose_defenses(observe_audited(next(iter(found.values())), params), params.what_if)
    times = StepTimes(next((plan.step_seconds for plan in earlier if _timed(plan.audit) == _timed(params)), None))
    chosen = dict[Hashable, Cells]()
    cells = dict[str, Cells]()
    for name, audited in found.items():
        alike = _alike(params, name, audited)
        if alike not in chosen:
            chosen[alike] = _choose(audited, params, times, defenses, seconds=60 * params.minutes * cores)
        cells[name] = chosen[alike]
    return AuditPlan(
        audit=params,
        version=__version__,
        written=written_times(params),
        step_seconds=times.known,
        what_if=defenses,
        cells=cells,
        doubts=doubts,
        granted={name: granted(params, name) for name in params.updates},
        network_source=_network_source(params),
    )


SCALING_UNCHECKED = (
    "Not checked: whether the client's code scales images before the network; no batch normalisation reads a first "
    "convolution that would tell."
)


SIZE_UNCHECKED = "Not checked: whether images have {size}×{size} pixels; the network takes others, too."


def _rehearse(audited: AuditedUpdate, params: AuditParams) -> list[str]:
    """Returns the rehearsal's notes, without those on what counters of batches have checked.

    Whether a client's code scales its images, and their size, are asked here alone: simulated clients have the
    network's.
    """
    observation = observe_audited(audited, params)
    notes = rehearse(observation)
    dtype = next(iter(observation.before.weights.values())).dtype
    if measure_input(observation, torch.zeros(2, *observation.image_shape, dtype=dtype)) is None:
        notes.append(SCALING_UNCHECKED)
    if takes_other_sizes(observation.before.module, params.images):
        notes.append(SIZE_UNCHECKED.format(size=params.images.size))
    counted = any(COUNTED in note for note in audited.notes)
    return [note for note in notes if not (counted and note.startswith((STEPS_UNCHECKED, SIGN_UNCHECKED)))]


def _alike(params: AuditParams, name: str, audited: AuditedUpdate) -> Hashable:
    """Returns what the choice of attacks depends on."""
    client, update = client_of(params, name), audited.stored.update
    return client.model_copy(update={"truth": None}), frozenset(update.weights), frozenset(update.statistics)


def _choose(
    audited: AuditedUpdate,
    params: AuditParams,
    times: StepTimes,
    defenses: Mapping[str, DefenseSteps],
    *,
    seconds: float,
) -> Cells:
    """Chooses the attacks on one update, as it was sent and under each defence."""
    observation, number = observe_audited(audited, params), len(defenses)
    cells = {AS_SENT: choose_attacks(observation, times, seconds=seconds, defended=number)}
    for name, steps in defenses.items():
        seen = observe_defended(defend(audited, params, name, steps), params, steps)
        strongest = cells[AS_SENT][MATCHING]
        cells[name] = {MATCHING: repeat_attack(strongest, seen, times, seconds=seconds, defended=number)}
    return cells
