"""`leakpipe plot attacks`: what each attack gets for its time."""

from typing import TYPE_CHECKING, Any

import click

from leakpipe.cli.figure_command import figure_command, reads_leakage

if TYPE_CHECKING:
    import pandas as pd

    from leakpipe.figures.style import Drawing


@figure_command("attacks")
@reads_leakage
@click.option("--attack", "attacks", multiple=True, required=True, help="Attack, in the legend's order; repeatable.")
@click.option("--defense", required=True, help="Defence whose rows are drawn.")
def plot_attacks(leakage: "pd.DataFrame", **settings: Any) -> "Drawing":
    """Draw similarity against wall time, attack by attack."""
    from leakpipe.figures.attacks import draw_attacks

    return draw_attacks(leakage, **settings)
