"""`leakpipe plot attacks`: what each attack gets for its time, as a figure and as a table."""

from pathlib import Path
from typing import Any

import click

from leakpipe.cli.figure_output import FigureOutput, figure_options
from leakpipe.cli.options import InputFile, OutputFile, record_options, settings_option


@click.command("attacks")
@settings_option("clients", "The `federation.clients` section")
@click.option("--leakage", type=InputFile, required=True, help="The leakage table (collect's output).")
@click.option("--attack", "attacks", multiple=True, required=True, help="Attack, in the legend's order; repeatable.")
@click.option("--defense", required=True, help="Defence whose rows are drawn.")
@click.option("--table", type=OutputFile, required=True, help="Where the table of means (.csv) goes.")
@figure_options
@record_options
def plot_attacks(
    clients: dict[str, Any],
    leakage: Path,
    attacks: tuple[str, ...],
    defense: str,
    table: Path,
    output: FigureOutput,
    record: Path | None,
    labels: dict[str, Any],
) -> None:
    """Draw similarity against wall time, attack by attack, and write the means behind it."""
    from leakpipe.figures.attacks import describe_attacks, plot_attacks
    from leakpipe.figures.selection import select
    from leakpipe.metrics.comparison import compare_attacks
    from leakpipe.metrics.table import LEAKAGE_COLUMNS, read_table, write_table
    from leakpipe.provenance import record_run

    params = {"attacks": list(attacks), "defense": defense}
    with record_run(record, rule="plot_attacks", labels=labels, params=params) as run:
        rows = read_table(leakage, LEAKAGE_COLUMNS)
        chosen: dict[str, Any] = {"attacks": attacks, "defense": defense, "clients": clients}
        output.save(plot_attacks(rows, **chosen), describe_attacks(rows, **chosen), run)
        write_table(table, compare_attacks(select(rows, defense=defense)).round(4))
        run.artifacts.append(str(table))
