"""`leakpipe plot rounds`: how much each client leaks, round by round."""

from pathlib import Path
from typing import Any

import click

from leakpipe.cli.figure_output import FigureOutput, figure_options
from leakpipe.cli.options import InputFile, record_options, settings_option


@click.command("rounds")
@settings_option("clients", "The `federation.clients` section")
@click.option("--leakage", type=InputFile, required=True, help="The leakage table (collect's output).")
@click.option("--attack", required=True, help="Attack to draw with full lines.")
@click.option("--compare", multiple=True, help="Attack to draw dashed beside it; repeatable.")
@click.option("--defense", required=True, help="Defence whose rows are drawn.")
@figure_options
@record_options
def plot_rounds(
    clients: dict[str, Any],
    leakage: Path,
    attack: str,
    compare: tuple[str, ...],
    defense: str,
    output: FigureOutput,
    record: Path | None,
    labels: dict[str, Any],
) -> None:
    """Draw RDLV against the captured rounds."""
    from leakpipe.figures.rounds import describe_rounds, plot_rounds
    from leakpipe.metrics.table import LEAKAGE_COLUMNS, read_table
    from leakpipe.provenance import record_run

    params = {"attack": attack, "compare": list(compare), "defense": defense}
    with record_run(record, rule="plot_rounds", labels=labels, params=params) as run:
        table = read_table(leakage, LEAKAGE_COLUMNS)
        chosen: dict[str, Any] = {"attack": attack, "compare": compare, "defense": defense, "clients": clients}
        output.save(plot_rounds(table, **chosen), describe_rounds(table, **chosen), run)
