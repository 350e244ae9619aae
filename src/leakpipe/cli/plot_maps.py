"""`leakpipe plot maps`: where in an image the leak is."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from leakpipe.cli.figure_command import figure_command, reads_leakage
from leakpipe.cli.picture_files import load_pictures, picture_options

if TYPE_CHECKING:
    import pandas as pd

    from leakpipe.figures.style import Drawing


@figure_command("maps")
@reads_leakage
@picture_options
@click.option("--attack", required=True, help="Attack to draw.")
@click.option("--defense", required=True, help="Defence whose reconstructions are shown.")
@click.option("--round", "captured_round", type=click.IntRange(min=1), required=True, help="Captured round to draw.")
@click.option(
    "--images-per-client", type=click.IntRange(min=1), default=2, show_default=True, help="Most images of a client."
)
def plot_maps(
    leakage: "pd.DataFrame",
    *,
    images: Path,
    splits: tuple[Path, ...],
    reconstructions: tuple[Path, ...],
    **settings: Any,
) -> "Drawing":
    """Draw the local gain in SSIM over the prior, pixel by pixel."""
    from leakpipe.figures.maps import draw_maps

    return draw_maps(leakage, load_pictures(images, splits, reconstructions), **settings)
