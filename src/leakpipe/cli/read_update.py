"""`leakpipe read-update`: a captured update of a foreign federation as files that the attacks read."""

from pathlib import Path
from typing import Any

import click

from leakpipe.cli.options import record_options, settings_option


@click.command()
@settings_option("audit", "The audit's parameters, with paths relative to the current folder")
@click.option("--update", required=True, help="Which of the captured updates.")
@click.option(
    "--out-dir",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Gets global.safetensors, prior.safetensors, and as-sent/update.safetensors.",
)
@record_options
def read_update(
    audit: dict[str, Any],
    update: str,
    out_dir: Path,
    record: Path | None,
    labels: dict[str, str],
) -> None:
    """Read a captured update and check it against the network."""
    from leakpipe.audit.inputs import read_public
    from leakpipe.audit.inputs import read_update as read
    from leakpipe.audit.network import save_network
    from leakpipe.data.priors import save_priors
    from leakpipe.federation.files import save_update
    from leakpipe.params.audit import AS_SENT, AuditParams
    from leakpipe.params.reading import parse_section
    from leakpipe.records.run_record import record_run

    params = parse_section(AuditParams, audit, source="--audit")
    with record_run(record, rule="read_update", labels=labels, params=audit) as run:
        public = read_public(params)
        found = read(params, update, public)
        save_network(out_dir / "global.safetensors", found.before, params)
        save_priors(out_dir / "prior.safetensors", {"all": found.prior}, seed=0, public=public)
        save_update(out_dir / AS_SENT / "update.safetensors", found.stored)
        run.details["notes"] = found.notes
