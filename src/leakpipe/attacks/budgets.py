"""Budgets of attacks, in seconds: turned into iterations by a record of how long one takes, which is measured once.

Time differs from run to run, results must not: an attack's iterations follow from its budget and from the record
alone, which belongs to the experiment like its parameters do. Cheap to import (no torch): the Snakefile reads it.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from leakpipe.attacks.presets import resolve_settings
from leakpipe.errors import LeakpipeError
from leakpipe.files.storage import read_json
from leakpipe.params.attack_settings import AttackSettings
from leakpipe.params.attacks import SECONDS
from leakpipe.params.experiment import Params

RECORD = Path("step-times.json")
FEWEST_ITERATIONS = 20


def budgeted(params: Params) -> Iterator[tuple[str, str, AttackSettings]]:
    """Yields attack, client and settings of each attack whose iterations on a client follow from a budget."""
    for name, attack in params.attacks.items():
        for client, target in attack.targets.items():
            if attack.budget is not None and target.iterations is None:
                yield name, client, resolve_settings(attack, client)


def fit_iterations(*, seconds: float, each: float) -> int:
    """Returns how many iterations of `each` seconds fit into `seconds`, `FEWEST_ITERATIONS` at least."""
    return max(FEWEST_ITERATIONS, int(seconds / each))


def _seconds(budget: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+) ?(\w+)", budget).groups()  # type: ignore[union-attr]  # as the schema says
    return float(number) * SECONDS[unit]


def read_record(path: Path) -> dict[str, Any]:
    """Returns the recorded steps by name; empty where there is no file."""
    return read_json(path) if path.exists() else {}


def step_of(params: Params, client: str, settings: AttackSettings) -> str:
    """Returns the name of a step in the record: of all that its time depends on but the machine."""
    victim = params.federation.clients[client]
    epochs = victim.local_epochs or params.federation.local_epochs
    training = victim.training or params.federation.training
    parts = [params.model, training, settings.model_copy(update={"iterations": 1})]
    content = json.dumps([each.model_dump(mode="json") for each in parts], sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()[:12]
    size = params.data.image_size
    return f"{params.model.name} {size}x{size}, {victim.images} in {victim.batch_size}, {epochs} epochs, {digest}"


def keep_budgets(params: Params, record: Mapping[str, Any]) -> Params:
    """Returns the experiment with the iterations that each budget allows.

    Raises:
        LeakpipeError: The record has no time of a step.
    """
    attacks = dict(params.attacks)
    for name, client, settings in budgeted(params):
        each = record.get(step_of(params, client, settings))
        if not isinstance(each, float | int) or each <= 0:
            raise LeakpipeError(
                f"attacks.{name}.budget: {RECORD} has no time of its step on client {client!r}; "
                "run leakpipe time-steps with these parameters, once"
            )
        attack = attacks[name]
        iterations = fit_iterations(seconds=_seconds(str(attack.budget)), each=each / 1000)
        target = attack.targets[client].model_copy(update={"iterations": iterations})
        attacks[name] = attack.model_copy(update={"targets": {**attack.targets, client: target}})
    return params.model_copy(update={"attacks": attacks})
