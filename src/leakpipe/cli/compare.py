"""`leakpipe compare`: attacks, clients and defences compared draw by draw, as a table."""

from pathlib import Path
from typing import Any

import click

from leakpipe.cli.options import InputFile, OutputFile, record_options


@click.command()
@click.option("--leakage", type=InputFile, required=True, help="The leakage table (collect's output).")
@click.option(
    "--attack", "attacks", multiple=True, required=True, help="Attack; the first is compared with the others."
)
@click.option("--client", "clients", multiple=True, required=True, help="Client; the same.")
@click.option("--defense", "defenses", multiple=True, required=True, help="Defence; the same.")
@click.option("--out", type=OutputFile, required=True, help="Where the table goes (.csv).")
@record_options
def compare(
    leakage: Path,
    attacks: tuple[str, ...],
    clients: tuple[str, ...],
    defenses: tuple[str, ...],
    out: Path,
    record: Path | None,
    labels: dict[str, Any],
) -> None:
    """Compare the first attack, client and defence with the others, with intervals and corrected p-values."""
    from leakpipe.records.run_record import record_run
    from leakpipe.tables.comparisons import compare_pairs
    from leakpipe.tables.table import LEAKAGE_COLUMNS, read_table, write_table

    orders = {"attack": attacks, "client": clients, "defense": defenses}
    with record_run(record, rule="compare", labels=labels, params=orders) as run:
        write_table(out, compare_pairs(read_table(leakage, LEAKAGE_COLUMNS), orders))
        run.artifacts.append(str(out))
