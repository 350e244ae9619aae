"""`leakpipe plot overview`: every client's images, framed by how much leaked."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from leakpipe.cli.figure_command import figure_command, reads_leakage
from leakpipe.cli.options import InputFile

if TYPE_CHECKING:
    import pandas as pd

    from leakpipe.figures.style import Drawing


@figure_command("overview")
@reads_leakage
@click.option("--images", type=InputFile, required=True, help="The data set (prepare-data's output).")
@click.option("--split", type=InputFile, required=True, help="Split of the seed that is drawn.")
@click.option("--attack", required=True, help="Attack to draw.")
@click.option("--defense", required=True, help="Defence whose rows are drawn.")
@click.option("--round", "captured_round", type=click.IntRange(min=1), required=True, help="Captured round to draw.")
def plot_overview(leakage: "pd.DataFrame", *, images: Path, split: Path, **settings: Any) -> "Drawing":
    """Draw the training images of all clients of one seed."""
    from leakpipe.data.files import load_dataset, load_split
    from leakpipe.figures.overview import draw_overview

    held, seed = load_split(split)
    return draw_overview(leakage, load_dataset(images).images, holdings=held.clients, seed=seed, **settings)
