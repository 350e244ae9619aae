"""`leakpipe plot tradeoff`: what each defence hides against what it costs."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from leakpipe.cli.figure_command import figure_command, reads_leakage
from leakpipe.cli.options import InputFile, settings_option

if TYPE_CHECKING:
    import pandas as pd

    from leakpipe.figures.style import Drawing


@figure_command("tradeoff")
@reads_leakage
@settings_option("defenses", "The `defenses` section: a point each")
@click.option("--accuracy", type=InputFile, required=True, help="The accuracy table (collect's output).")
@click.option("--table", type=InputFile, required=True, help="The defence table (compare-defenses' output).")
@click.option("--attack", required=True, help="Attack to draw.")
def plot_tradeoff(
    leakage: "pd.DataFrame", *, accuracy: Path, table: Path, defenses: Mapping[str, Any], **settings: Any
) -> "Drawing":
    """Draw the leakage of the worst client against test accuracy, a point per defence."""
    from leakpipe.defenses.naming import name_defenses
    from leakpipe.figures.tradeoff import draw_tradeoff
    from leakpipe.tables.defenses import DEFENSE_COLUMNS
    from leakpipe.tables.table import ACCURACY_COLUMNS, read_table

    found = read_table(table, DEFENSE_COLUMNS)
    return draw_tradeoff(
        leakage,
        read_table(accuracy, ACCURACY_COLUMNS),
        defenses=name_defenses(defenses),
        destroyed=found.loc[found["destroyed"], "defense"].tolist(),
        **settings,
    )
