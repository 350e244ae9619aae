"""`leakpipe read-update`: a captured update of a foreign federation as files that the attacks read."""

from pathlib import Path
from typing import Any

import click

from leakpipe.cli.options import record_options, settings_option


@click.command()
@settings_option("audit", "The audit's parameters, with paths relative to the current folder")
@click.option("--update", required=True, help="Which of the captured updates.")
@settings_option("what-if", "Steps of each defence to apply to the update, by name")
@click.option(
    "--out-dir",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Gets global.safetensors, prior.safetensors, and for each defence DEFENSE/update.safetensors.",
)
@record_options
def read_update(
    audit: dict[str, Any],
    update: str,
    what_if: dict[str, Any],
    out_dir: Path,
    record: Path | None,
    labels: dict[str, str],
) -> None:
    """Read a captured update, check it against the network, and apply the defences that it is attacked under."""
    from leakpipe.audit.inputs import read_update as read
    from leakpipe.audit.network import save_network
    from leakpipe.audit.what_if import defend
    from leakpipe.data.priors import save_priors
    from leakpipe.federation.files import save_update
    from leakpipe.params.audit import AS_SENT, AuditParams
    from leakpipe.params.defenses import DefenseSteps
    from leakpipe.params.reading import parse_section
    from leakpipe.records.run_record import record_run

    params = parse_section(AuditParams, audit, source="--audit")
    with record_run(record, rule="read_update", labels=labels, params=audit) as run:
        found = read(params, update)
        save_network(out_dir / "global.safetensors", found.before, params)
        save_priors(out_dir / "prior.safetensors", {"all": found.prior}, seed=0)
        for name, steps in {AS_SENT: [], **what_if}.items():
            defended = defend(found, params, name, DefenseSteps.model_validate(steps))
            save_update(out_dir / name / "update.safetensors", defended.stored)
        run.details["notes"] = found.notes
