"""`leakpipe plot identifiability`: how many reconstructions say which image they came from."""

from pathlib import Path
from typing import Any

import click

from leakpipe.cli.figure_output import FigureOutput, figure_options
from leakpipe.cli.options import InputFile, record_options, settings_option


@click.command("identifiability")
@settings_option("identifiability", "The `identifiability` section")
@settings_option("clients", "The `federation.clients` section")
@click.option("--table", type=InputFile, required=True, help="The identifiability table.")
@click.option("--attack", required=True, help="Attack to draw.")
@click.option("--defense", required=True, help="Defence whose rows are drawn.")
@figure_options
@record_options
def plot_identifiability(
    identifiability: dict[str, Any],
    clients: dict[str, Any],
    table: Path,
    attack: str,
    defense: str,
    output: FigureOutput,
    record: Path | None,
    labels: dict[str, Any],
) -> None:
    """Draw IIP against the number of images and the batch size of the clients."""
    from leakpipe.figures.identifiability import describe_identifiability, plot_identifiability
    from leakpipe.metrics.identifiability import identifiability_columns
    from leakpipe.metrics.table import read_table
    from leakpipe.params import IdentifiabilityParams
    from leakpipe.params_files import parse_section
    from leakpipe.provenance import record_run

    params = {"attack": attack, "defense": defense, **identifiability}
    with record_run(record, rule="plot_identifiability", labels=labels, params=params) as run:
        measured = parse_section(IdentifiabilityParams, identifiability, source="--identifiability")
        rows = read_table(table, identifiability_columns(measured.top))
        chosen: dict[str, Any] = {
            "attack": attack,
            "defense": defense,
            "embedders": measured.embedders,
            "clients": clients,
        }
        output.save(plot_identifiability(rows, **chosen), describe_identifiability(rows, **chosen), run)
