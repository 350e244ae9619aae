"""`leakpipe collect-identifiability`: the look-ups of all attacks in one tidy table."""

from pathlib import Path
from typing import Any

import click

from leakpipe.cli.options import InputFile, OutputFile, record_options, settings_option


@click.command()
@settings_option("identifiability", "The `identifiability` section")
@click.option("--table", "tables", type=InputFile, multiple=True, required=True, help="identify's output; repeatable.")
@click.option("--out", type=OutputFile, required=True, help="Where the table (.csv) goes.")
@record_options
def collect_identifiability(
    identifiability: dict[str, Any], tables: tuple[Path, ...], out: Path, record: Path | None, labels: dict[str, Any]
) -> None:
    """Collect what `identify` found into one table."""
    from leakpipe.params.experiment import IdentifiabilityParams
    from leakpipe.params.reading import parse_section
    from leakpipe.records.run_record import record_run
    from leakpipe.tables.table import collect_identifiability as collect
    from leakpipe.tables.table import identifiability_columns, read_table, write_table

    with record_run(record, rule="collect_identifiability", labels=labels, params=identifiability) as run:
        top = parse_section(IdentifiabilityParams, identifiability, source="--identifiability").top
        write_table(out, collect((read_table(path, identifiability_columns(top)) for path in tables), top=top))
        run.artifacts.append(str(out))
