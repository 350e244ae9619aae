"""`leakpipe account`: what each defence guarantees, as a table."""

from pathlib import Path
from typing import Any

import click

from leakpipe.cli.options import OutputFile, record_options, settings_option


@click.command()
@settings_option("defenses", "The `defenses` section")
@settings_option("federation", "The `federation` section")
@settings_option("privacy", "The `privacy` section")
@click.option("--out", type=OutputFile, required=True, help="Where the table goes (.csv).")
@record_options
def account(
    defenses: dict[str, Any],
    federation: dict[str, Any],
    privacy: dict[str, Any],
    out: Path,
    record: Path | None,
    labels: dict[str, Any],
) -> None:
    """Write the ε of every defence after all rounds, or why it has none."""
    from leakpipe.accounting.table import tabulate_guarantees
    from leakpipe.params.federation import FederationParams
    from leakpipe.params.privacy import PrivacyParams
    from leakpipe.params.reading import parse_section
    from leakpipe.records.run_record import record_run
    from leakpipe.tables.table import write_table

    params = {"defenses": defenses, "federation": federation, "privacy": privacy}
    with record_run(record, rule="account", labels=labels, params=params) as run:
        settings = parse_section(FederationParams, federation, source="--federation")
        delta = parse_section(PrivacyParams, privacy, source="--privacy").delta
        write_table(out, tabulate_guarantees(defenses, settings, delta=delta))
        run.artifacts.append(str(out))
