"""`leakpipe plot reconstructions`: originals beside what the attack rebuilt."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from leakpipe.cli.figure_command import figure_command, reads_leakage
from leakpipe.cli.options import settings_option
from leakpipe.cli.picture_files import load_pictures, picture_options

if TYPE_CHECKING:
    import pandas as pd

    from leakpipe.figures.style import Drawing


@figure_command("reconstructions")
@reads_leakage
@settings_option("defenses", "The `defenses` section: the columns")
@picture_options
@click.option("--attack", required=True, help="Attack to draw.")
@click.option("--round", "captured_round", type=click.IntRange(min=1), required=True, help="Captured round to draw.")
@click.option(
    "--images-per-client", type=click.IntRange(min=1), default=2, show_default=True, help="Most images of a client."
)
def plot_reconstructions(
    leakage: "pd.DataFrame",
    *,
    images: Path,
    splits: tuple[Path, ...],
    reconstructions: tuple[Path, ...],
    defenses: Mapping[str, Any],
    **settings: Any,
) -> "Drawing":
    """Draw originals, priors and reconstructions side by side."""
    from leakpipe.defenses.naming import name_defenses
    from leakpipe.figures.reconstructions import draw_reconstructions

    pictures = load_pictures(images, splits, reconstructions)
    return draw_reconstructions(leakage, pictures, defenses=name_defenses(defenses), **settings)
