"""`leakpipe plot clients`: leakage against what clients hold and how they train."""

from typing import TYPE_CHECKING, Any

import click

from leakpipe.cli.figure_command import figure_command, reads_leakage

if TYPE_CHECKING:
    import pandas as pd

    from leakpipe.figures.style import Drawing


@figure_command("clients")
@reads_leakage
@click.option("--attack", required=True, help="Attack to draw.")
@click.option("--defense", required=True, help="Defence whose rows are drawn.")
@click.option("--local-epochs", type=click.IntRange(min=1), required=True, help="Of clients with none of their own.")
def plot_clients(leakage: "pd.DataFrame", **settings: Any) -> "Drawing":
    """Draw leakage against images, batch size and local steps."""
    from leakpipe.figures.clients import draw_clients

    return draw_clients(leakage, **settings)
