"""The files that figures with pictures read: images, splits and reconstructions."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from leakpipe.cli.options import Command, InputFile

if TYPE_CHECKING:
    from leakpipe.figures.pictures import Pictures


def picture_options(command: Command) -> Command:
    """Add `--images`, `--split` and `--reconstruction`: what `load_pictures` takes."""
    for option in (
        click.option(
            "--reconstruction", "reconstructions", type=InputFile, multiple=True, required=True, help="Attack's output."
        ),
        click.option("--split", "splits", type=InputFile, multiple=True, required=True, help="A seed's; repeatable."),
        click.option("--images", type=InputFile, required=True, help="The data set (prepare-data's output)."),
    ):
        command = option(command)
    return command


def load_pictures(images: Path, splits: Iterable[Path], reconstructions: Iterable[Path]) -> "Pictures":
    """Read the images that the leakage table's rows are about."""
    from leakpipe.attacks.files import load_reconstruction
    from leakpipe.data.files import load_dataset, load_split
    from leakpipe.errors import LeakpipeError
    from leakpipe.figures.pictures import Pictures

    by_seed = {seed: split for split, seed in map(load_split, splits)}
    priors, rebuilt = {}, {}
    for path in reconstructions:
        found = load_reconstruction(path)
        cell = found.cell
        if cell["seed"] not in by_seed:
            raise LeakpipeError(f"{path}: its seed {cell['seed']} has no --split")
        rebuilt[cell["defense"], cell["seed"], cell["client"]] = found.images
        for image, start in zip(by_seed[cell["seed"]].clients[cell["client"]], found.prior, strict=True):
            priors[cell["seed"], image] = start
    return Pictures(load_dataset(images).images, priors, rebuilt)
