"""`leakpipe plot noise`: leakage and accuracy against the noise multiplier."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from leakpipe.cli.figure_command import figure_command, reads_leakage
from leakpipe.cli.options import InputFile, settings_option

if TYPE_CHECKING:
    import pandas as pd

    from leakpipe.figures.style import Drawing


@figure_command("noise")
@reads_leakage
@settings_option("defenses", "The `defenses` section; those that are nothing but Gaussian noise are drawn")
@click.option("--accuracy", type=InputFile, required=True, help="The accuracy table (collect's output).")
@click.option("--attack", required=True, help="Attack to draw.")
def plot_noise(leakage: "pd.DataFrame", *, accuracy: Path, defenses: Mapping[str, Any], **settings: Any) -> "Drawing":
    """Draw RDLV and test accuracy against σ0."""
    from leakpipe.defenses.naming import noise_multipliers
    from leakpipe.figures.noise import draw_noise
    from leakpipe.tables.table import ACCURACY_COLUMNS, read_table

    return draw_noise(leakage, read_table(accuracy, ACCURACY_COLUMNS), sigma0=noise_multipliers(defenses), **settings)
