"""`leakpipe defend-update`: a captured update as it would have been under further defences."""

from pathlib import Path
from typing import Any

import click

from leakpipe.cli.options import record_options, settings_option


@click.command()
@settings_option("audit", "The audit's parameters, with paths relative to the current folder")
@settings_option("what-if", "Steps of each defence to apply to the update, by name")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder that read-update wrote; for each defence it gets DEFENSE/update.safetensors.",
)
@record_options
def defend_update(
    audit: dict[str, Any],
    what_if: dict[str, Any],
    folder: Path,
    record: Path | None,
    labels: dict[str, str],
) -> None:
    """Apply to an update each of the defences that it is attacked under as well."""
    from leakpipe.audit.inputs import load_audited
    from leakpipe.audit.what_if import defend
    from leakpipe.federation.files import save_update
    from leakpipe.params.audit import AS_SENT, AuditParams
    from leakpipe.params.defenses import DefenseSteps
    from leakpipe.params.reading import parse_section
    from leakpipe.records.run_record import record_run

    params = parse_section(AuditParams, audit, source="--audit")
    with record_run(record, rule="defend_update", labels=labels, params=audit):
        sent = load_audited(folder, AS_SENT, params)
        for name, content in what_if.items():
            steps = parse_section(DefenseSteps, content, source=f"--what-if: {name}")
            save_update(folder / name / "update.safetensors", defend(sent, params, name, steps).stored)
