"""`leakpipe fetch`: downloads a data set through its publisher's own client."""

from pathlib import Path

import click

Folder = click.Path(path_type=Path, file_okay=False)


@click.group()
def fetch() -> None:
    """Download a data set. docs/data-sets.md describes each, with its licence."""


def into_option(command: click.decorators.FC) -> click.decorators.FC:
    """Adds `--into`, the folder of the data set."""
    return click.option(
        "--into", type=Folder, help="Folder to save it in  [default: LEAKPIPE_DATA, else `data` in the current folder]"
    )(command)


@fetch.command("covid-radiography")
@into_option
def fetch_covid(into: Path | None) -> None:
    """The COVID-19 Radiography Database, with your own Kaggle credentials (needs the extra `kaggle`)."""
    from leakpipe.data.fetch import fetch_covid_radiography
    from leakpipe.data.folders import data_folder

    click.echo(fetch_covid_radiography(into or data_folder()))


@fetch.command("medmnist")
@click.argument("subset")
@click.option(
    "--size",
    type=click.Choice(["28", "64", "128", "224"]),
    default="28",
    show_default=True,
    help="Height and width in pixels.",
)
@into_option
def fetch_medmnist_set(subset: str, size: str, into: Path | None) -> None:
    """The set SUBSET of MedMNIST, such as `pneumoniamnist` (needs the extra `medmnist`)."""
    from leakpipe.data.fetch import fetch_medmnist
    from leakpipe.data.folders import data_folder
    from leakpipe.data.medmnist_sets import FOLDER

    click.echo(fetch_medmnist(subset, into or data_folder() / FOLDER, size=int(size)))
