"""Defences that would help: steps that are applied to an update afterwards, which is then attacked again.

Secure aggregation is an estimate. Nobody who audits one update has those of the other clients, so they are simulated:
as many images as the audited client has, trained alike from the same global model.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from leakpipe.attacks.observation import Observation
from leakpipe.attacks.plausible import plausible_images
from leakpipe.audit.inputs import AuditedUpdate, observe_audited, read_public
from leakpipe.client.batches import make_batches
from leakpipe.client.local_update import local_update
from leakpipe.client.update import ClientUpdate, aggregate_updates
from leakpipe.defenses.compose import apply_defenses
from leakpipe.defenses.steps import count_aggregated
from leakpipe.errors import LeakpipeError
from leakpipe.federation.files import CohortMember
from leakpipe.models.state import forward_frozen
from leakpipe.params.audit import AuditParams
from leakpipe.params.defenses import DefenseSteps
from leakpipe.randomness import derive_seed
from leakpipe.tables.wording import count

AGGREGATE = re.compile(r"aggregate-of-([1-9]\d?)")
# The defences that are tried unless `what_if` names others: the paper's noise at two strengths, NVFlare's filters with
# their own defaults (its third, ExcludeVars, removes nothing by default), clipping to the norm that Flower starts from.
WHAT_IF: Mapping[str, list[dict[str, Any]]] = {
    "noise-5": [{"kind": "gaussian", "sigma0": 5}],
    "noise-20": [{"kind": "gaussian", "sigma0": 20}],
    "no-statistics": [{"kind": "freeze-bn-statistics"}],
    "percentile": [{"kind": "percentile"}],
    "svt": [{"kind": "svt"}],
    "clip-0.1": [{"kind": "clip", "clip_norm": 0.1}],
    "aggregate-of-2": [{"kind": "secure-aggregation", "clients": 2}],
    "aggregate-of-5": [{"kind": "secure-aggregation", "clients": 5}],
}

SAID = {
    "noise-5": "the paper's Gaussian noise, σ0 = 5",
    "noise-20": "the paper's Gaussian noise, σ0 = 20",
    "no-statistics": "batch statistics left out of the update",
    "percentile": "NVFlare's PercentilePrivacy with its defaults",
    "svt": "NVFlare's SVTPrivacy with its defaults",
    "clip-0.1": "the update scaled down to norm 0.1, where Flower's adaptive clipping starts",
}


def choose_defenses(observation: Observation, names: Sequence[str] | None) -> dict[str, DefenseSteps]:
    """Returns the defences that an update is attacked under as well; None chooses all of `WHAT_IF` that change it."""
    found = {}
    for name in WHAT_IF if names is None else names:
        steps = _named(name)
        withholds = any(step.kind == "freeze-bn-statistics" for step in steps.root)
        if observation.update.statistics or not withholds:
            found[name] = steps
    return found


def _named(name: str) -> DefenseSteps:
    numbered = AGGREGATE.fullmatch(name)
    if numbered and int(numbered[1]) > 1:
        return DefenseSteps.model_validate([{"kind": "secure-aggregation", "clients": int(numbered[1])}])
    if name not in WHAT_IF:
        known = ", ".join(WHAT_IF)
        raise LeakpipeError(f"what_if: unknown defence {name!r}; known: {known}, and aggregate-of-N for N up to 99")
    return DefenseSteps.model_validate(WHAT_IF[name])


def defend(audited: AuditedUpdate, params: AuditParams, name: str, steps: DefenseSteps) -> AuditedUpdate:
    """Returns an update as it would have been under a further defence, or averaged with those of simulated clients."""
    sent = audited.stored
    generator = torch.Generator().manual_seed(derive_seed("what-if", params.audit, sent.cell["client"], name))
    update = apply_defenses(sent.update, steps, generator=generator).update
    stored = replace(sent, update=update, cell={**sent.cell, "defense": name})
    clients = count_aggregated(steps)
    if clients > 1:
        others, cohort = _simulate(audited, params, clients - 1, generator)
        mean = aggregate_updates([update, *others], [len(sent.labels)] * clients)
        stored = replace(stored, update=replace(mean, removed=update.removed), cohort=cohort)
    return replace(audited, stored=stored)


def observe_defended(audited: AuditedUpdate, params: AuditParams, steps: DefenseSteps) -> Observation:
    """Returns what an attacker sees who knows the client's own defence and the further one."""
    return observe_audited(
        audited, params.model_copy(update={"defense": DefenseSteps((*params.defense.root, *steps.root))})
    )


def _simulate(
    audited: AuditedUpdate, params: AuditParams, clients: int, generator: torch.Generator
) -> tuple[list[ClientUpdate], list[CohortMember]]:
    """Trains other clients; labels are drawn evenly, and each applies the defence that the audited one declared."""
    stored, own = audited.stored, audited.stored.update
    images = _draw_images(observe_audited(audited, params), params, clients, generator)
    with torch.no_grad():
        classes = forward_frozen(audited.before, images[0]).shape[1]
    updates, cohort = [], []
    for number, each in enumerate(images, start=1):
        labels = torch.randint(classes, (len(each),), generator=generator)
        trained = local_update(audited.before, make_batches(each, labels, stored.schedule), stored.settings)
        shared = ClientUpdate(
            {name: trained.weights[name] for name in own.weights},
            {name: trained.statistics[name] for name in own.statistics},
            steps=trained.steps,
        )
        updates.append(apply_defenses(shared, params.defense, generator=generator).update)
        cohort.append(CohortMember(f"simulated-{number}", stored.schedule, labels.tolist()))
    return updates, cohort


def _draw_images(
    observation: Observation, params: AuditParams, clients: int, generator: torch.Generator
) -> list[Tensor]:
    """Returns the images of each simulated client, shape (images, channels, height, width) in [0, 1]."""
    dtype, number = next(iter(observation.before.weights.values())).dtype, observation.client.images
    if params.public is None:
        return [plausible_images(observation, generator).to(dtype) for _ in range(clients)]
    public = torch.from_numpy(read_public(params)).to(dtype)
    rounds = -(-clients * number // len(public))  # where there are too few, some are drawn again
    order = torch.cat([torch.randperm(len(public), generator=generator) for _ in range(rounds)])
    return list(public[order[: clients * number]].split(number))


def is_estimate(name: str) -> bool:
    """Returns whether a defence is an aggregate, whose other clients are simulated."""
    return AGGREGATE.fullmatch(name) is not None


def describe_defense(name: str) -> str:
    """Returns what a defence of an audit is, for a person."""
    if numbered := AGGREGATE.fullmatch(name):
        return f"secure aggregation with {count(int(numbered[1]) - 1, 'simulated client')}, an estimate"
    return SAID[name]


def describe_companions(params: AuditParams) -> str:
    """Returns what an estimate of secure aggregation assumes of the other clients, without a full stop."""
    images = "smooth noise in place of images" if params.public is None else f"images drawn from {params.public}"
    return (
        "an estimate: this update averaged with those of simulated clients, each with as many images as this one, "
        f"trained alike on {images}; the attacker knows how they trained and searches the images of all of them; "
        "among real clients this one may stand out more or less"
    )
