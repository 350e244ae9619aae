"""From an audit's files to its findings."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from leakpipe.attacks.explanation import explained_share
from leakpipe.attacks.files import load_reconstruction
from leakpipe.audit.assessment import Assessment, Attempt, assess, compare_with_sent, take_nearest
from leakpipe.audit.assumptions import list_assumptions
from leakpipe.audit.calibration import shipped_calibration
from leakpipe.audit.inputs import AuditedUpdate, load_audited, observe_audited, read_truth
from leakpipe.audit.page import AuditFindings
from leakpipe.audit.plan import hardly_begun
from leakpipe.defenses.steps import count_aggregated
from leakpipe.files.storage import read_json
from leakpipe.params.audit import AS_SENT, AuditParams, AuditPlan
from leakpipe.params.defenses import DefenseSteps


def collect_findings(
    plan: AuditPlan, *, updates: str, reconstruction: str, attack_record: str, read_record: str
) -> AuditFindings:
    """Reads all reconstructions of an audit and judges them.

    Args:
        plan: What `leakpipe audit` planned.
        updates: Folder of each update, a path with {captured}.
        reconstruction: Path with {captured}, {defense} and {attack}.
        attack_record: The same of the run records.
        read_record: Path of read-update's run records, with {captured}.
    """
    params = plan.audit
    attempts, assessments, notes, truths = [], [], list[str](), dict[str, np.ndarray]()
    for update in params.updates:
        notes += [
            note
            for note in read_json(Path(read_record.format(captured=update)))["details"]["notes"]
            if note not in notes
        ]
        truth = read_truth(params, update)
        if truth is not None:
            truths[update] = truth.images
        sent: Assessment | None = None  # of the update as it was sent, which comes first
        for defense, attacks in plan.cells[update].items():
            cell = {"update": update, "defense": defense}
            further = plan.what_if[defense].root if defense in plan.what_if else ()
            steps = DefenseSteps((*params.defense.root, *further))
            audited = load_audited(Path(updates.format(captured=update)), defense, params)
            known = truth or (sent and sent.best)
            reference = known.images if known else None
            found = list(_attempts(audited, cell, attacks, params, steps, reference, reconstruction, attack_record))
            attempts += found
            judged = assess(found, shipped_calibration(), truth)
            if sent is not None:
                judged = compare_with_sent(judged, sent, shipped_calibration())
            sent = sent or judged
            assessments.append(judged)
    return AuditFindings(
        name=params.audit,
        assessments=assessments,
        attempts=attempts,
        assumptions=list_assumptions(params, notes, doubts=plan.doubts, aggregated=_aggregates(plan)),
        attacks={name: attack for cells in plan.cells.values() for name, attack in cells[AS_SENT].items()},
        hardly_begun=hardly_begun(plan),
        truths=truths,
    )


def _aggregates(plan: AuditPlan) -> bool:
    return any(count_aggregated(steps) > 1 for steps in plan.what_if.values())


def _attempts(
    audited: AuditedUpdate,
    cell: Mapping[str, str],
    attacks: Iterable[str],
    params: AuditParams,
    steps: DefenseSteps,
    reference: np.ndarray | None,
    reconstruction: str,
    attack_record: str,
) -> Iterator[Attempt]:
    observation = observe_audited(audited, params.model_copy(update={"defense": steps}))
    for attack in attacks:
        place = {"captured": cell["update"], "defense": cell["defense"], "attack": attack}
        found = load_reconstruction(Path(reconstruction.format(**place)))
        (summary,) = read_json(Path(attack_record.format(**place)))["details"]["attacks"]
        rebuilt, labels = found.images, torch.from_numpy(found.labels)
        if reference is not None and found.companions is not None:
            rebuilt = take_nearest(rebuilt, found.companions, reference)
        yield Attempt(
            **cell,
            attack=attack,
            images=rebuilt,
            prior=found.prior,
            explained=explained_share(observation, torch.from_numpy(rebuilt), labels),
            seconds=summary["seconds"],
            iterations=found.iterations,
            notes=summary["notes"],
        )
