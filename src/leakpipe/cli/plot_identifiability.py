"""`leakpipe plot identifiability`: how many reconstructions say which image they came from."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from leakpipe.cli.figure_command import figure_command
from leakpipe.cli.options import InputFile, settings_option

if TYPE_CHECKING:
    from leakpipe.figures.style import Drawing


@figure_command("identifiability")
@settings_option("identifiability", "The `identifiability` section")
@click.option("--table", type=InputFile, required=True, help="The identifiability table.")
@click.option("--attack", required=True, help="Attack to draw.")
@click.option("--defense", required=True, help="Defence whose rows are drawn.")
def plot_identifiability(table: Path, *, identifiability: Mapping[str, Any], **settings: Any) -> "Drawing":
    """Draw IIP against the number of images and the batch size of the clients."""
    from leakpipe.figures.identifiability import draw_identifiability
    from leakpipe.params.experiment import IdentifiabilityParams
    from leakpipe.params.reading import parse_section
    from leakpipe.tables.table import identifiability_columns, read_table

    measured = parse_section(IdentifiabilityParams, identifiability, source="--identifiability")
    rows = read_table(table, identifiability_columns(measured.top))
    return draw_identifiability(rows, embedders=measured.embedders, **settings)
