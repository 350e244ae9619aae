"""`leakpipe plot front`: the leak that each defence leaves against the accuracy that it keeps."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from leakpipe.cli.figure_command import figure_command
from leakpipe.cli.options import InputFile, settings_option

if TYPE_CHECKING:
    from leakpipe.figures.style import Drawing


@figure_command("front")
@settings_option("defenses", "The `defenses` section")
@click.option("--table", type=InputFile, required=True, help="The defence table (compare-defenses' output).")
def plot_front(table: Path, *, defenses: Mapping[str, Any], clients: Mapping[str, Any]) -> "Drawing":
    """Draw RDLV against test accuracy, a point per defence, with the privacy-utility front."""
    from leakpipe.defenses.naming import name_defenses
    from leakpipe.figures.front import draw_front
    from leakpipe.tables.defenses import DEFENSE_COLUMNS
    from leakpipe.tables.table import read_table

    return draw_front(read_table(table, DEFENSE_COLUMNS), names=name_defenses(defenses), clients=clients)
