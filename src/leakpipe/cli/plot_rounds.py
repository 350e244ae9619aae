"""`leakpipe plot rounds`: how much each client leaks, round by round."""

from typing import TYPE_CHECKING, Any

import click

from leakpipe.cli.figure_command import figure_command, reads_leakage

if TYPE_CHECKING:
    import pandas as pd

    from leakpipe.figures.style import Drawing


@figure_command("rounds")
@reads_leakage
@click.option("--attack", required=True, help="Attack to draw with full lines.")
@click.option("--compare", multiple=True, help="Attack to draw dashed beside it; repeatable.")
@click.option("--defense", required=True, help="Defence whose rows are drawn.")
def plot_rounds(leakage: "pd.DataFrame", **settings: Any) -> "Drawing":
    """Draw leakage against the captured rounds."""
    from leakpipe.figures.rounds import draw_rounds

    return draw_rounds(leakage, **settings)
