"""`leakpipe plot effect`: what each attack of a comparison gets."""

from typing import TYPE_CHECKING, Any

import click

from leakpipe.cli.figure_command import figure_command, reads_leakage
from leakpipe.cli.options import settings_option

if TYPE_CHECKING:
    import pandas as pd

    from leakpipe.figures.style import Drawing


@figure_command("effect")
@reads_leakage
@settings_option("comparison", "One entry of the `comparisons` section")
@click.option("--defense", required=True, help="Defence whose rows are drawn.")
def plot_effect(leakage: "pd.DataFrame", **settings: Any) -> "Drawing":
    """Draw the SSIM of the attacks of a comparison side by side."""
    from leakpipe.figures.effect import draw_effect

    return draw_effect(leakage, **settings)
