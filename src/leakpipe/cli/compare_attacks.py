"""`leakpipe compare-attacks`: the means of every attack, client and round as a table."""

from pathlib import Path
from typing import Any

import click

from leakpipe.cli.options import InputFile, OutputFile, record_options


@click.command()
@click.option("--leakage", type=InputFile, required=True, help="The leakage table (collect's output).")
@click.option("--defense", required=True, help="Defence whose rows are compared.")
@click.option("--out", type=OutputFile, required=True, help="Where the table (.csv) goes.")
@record_options
def compare_attacks(leakage: Path, defense: str, out: Path, record: Path | None, labels: dict[str, Any]) -> None:
    """Write the mean of every measure by attack, client and round, with intervals over draws."""
    from leakpipe.records.run_record import record_run
    from leakpipe.tables.comparisons import compare_attacks
    from leakpipe.tables.table import LEAKAGE_COLUMNS, read_table, write_table
    from leakpipe.tables.wording import select

    with record_run(record, rule="compare_attacks", labels=labels, params={"defense": defense}) as run:
        rows = select(read_table(leakage, LEAKAGE_COLUMNS), defense=defense)
        write_table(out, compare_attacks(rows).round(4))
        run.artifacts.append(str(out))
