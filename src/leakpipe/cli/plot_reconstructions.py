"""`leakpipe plot reconstructions`: originals beside what the attack rebuilt."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from leakpipe.cli.figure_output import FigureOutput, figure_options
from leakpipe.cli.options import InputFile, record_options, settings_option

if TYPE_CHECKING:
    from leakpipe.figures.reconstructions import Pictures


@click.command("reconstructions")
@settings_option("clients", "The `federation.clients` section")
@settings_option("defenses", "The `defenses` section: the columns")
@click.option("--leakage", type=InputFile, required=True, help="The leakage table (collect's output).")
@click.option("--images", type=InputFile, required=True, help="The data set (prepare-data's output).")
@click.option("--split", "splits", type=InputFile, multiple=True, required=True, help="Split of a seed; repeatable.")
@click.option(
    "--reconstruction", "reconstructions", type=InputFile, multiple=True, required=True, help="Attack's output."
)
@click.option("--attack", required=True, help="Attack to draw.")
@click.option("--round", "captured_round", type=click.IntRange(min=1), required=True, help="Captured round to draw.")
@click.option(
    "--images-per-client", type=click.IntRange(min=1), default=2, show_default=True, help="Most images of a client."
)
@figure_options
@record_options
def plot_reconstructions(
    clients: dict[str, Any],
    defenses: dict[str, Any],
    leakage: Path,
    images: Path,
    splits: tuple[Path, ...],
    reconstructions: tuple[Path, ...],
    attack: str,
    captured_round: int,
    images_per_client: int,
    output: FigureOutput,
    record: Path | None,
    labels: dict[str, Any],
) -> None:
    """Draw originals, priors and reconstructions side by side."""
    from leakpipe.figures.reconstructions import describe_reconstructions, plot_reconstructions
    from leakpipe.figures.selection import name_defenses
    from leakpipe.metrics.table import LEAKAGE_COLUMNS, read_table
    from leakpipe.provenance import record_run

    params = {"attack": attack, "round": captured_round, "images_per_client": images_per_client}
    with record_run(record, rule="plot_reconstructions", labels=labels, params=params) as run:
        table = read_table(leakage, LEAKAGE_COLUMNS)
        pictures = _load_pictures(images, splits, reconstructions)
        chosen: dict[str, Any] = {
            "attack": attack,
            "captured_round": captured_round,
            "defenses": name_defenses(defenses),
            "clients": clients,
            "images_per_client": images_per_client,
        }
        figure = plot_reconstructions(table, pictures, **chosen)
        output.save(figure, describe_reconstructions(table, **chosen), run)


def _load_pictures(images: Path, splits: Iterable[Path], reconstructions: Iterable[Path]) -> "Pictures":
    from leakpipe.attacks.files import load_reconstruction
    from leakpipe.data.files import load_dataset, load_split
    from leakpipe.errors import LeakpipeError
    from leakpipe.figures.reconstructions import Pictures

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
