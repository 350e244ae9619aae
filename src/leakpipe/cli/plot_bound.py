"""`leakpipe plot bound`: how often images are recognised against the most that any attack could."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from leakpipe.cli.figure_command import figure_command
from leakpipe.cli.options import InputFile, settings_option

if TYPE_CHECKING:
    from leakpipe.figures.style import Drawing


@figure_command("bound")
@settings_option("defenses", "The `defenses` section")
@click.option("--table", type=InputFile, required=True, help="The identifiability table.")
@click.option("--privacy", type=InputFile, required=True, help="What is guaranteed (account's output).")
@click.option("--images", type=InputFile, required=True, help="The data set (prepare-data's output).")
@click.option("--split", "splits", type=InputFile, multiple=True, required=True, help="A seed's split; repeatable.")
@click.option("--client", required=True, help="Attacked client.")
@click.option("--embedder", required=True, help="What measured how near images are.")
@click.option("--delta", type=float, required=True, help="δ that ε is given at.")
@click.option("--attack", "attacks", multiple=True, required=True, help="Attack that counts; repeatable.")
def plot_bound(
    table: Path,
    *,
    defenses: Mapping[str, Any],
    privacy: Path,
    images: Path,
    splits: tuple[Path, ...],
    client: str,
    embedder: str,
    delta: float,
    attacks: tuple[str, ...],
    clients: Mapping[str, Any],
) -> "Drawing":
    """Draw the share of recognised images against ε, under its bound."""
    from leakpipe.accounting.table import PRIVACY_COLUMNS
    from leakpipe.data.files import load_dataset, load_split
    from leakpipe.defenses.naming import name_defenses
    from leakpipe.figures.bound import draw_bound
    from leakpipe.tables.robustness import class_chance, compare_with_bounds
    from leakpipe.tables.table import identifiability_columns, read_table

    labels = load_dataset(images).labels
    compared = compare_with_bounds(
        read_table(table, identifiability_columns((1,))),
        read_table(privacy, PRIVACY_COLUMNS),
        client=client,
        embedder=embedder,
        prior_success=max(class_chance(labels, load_split(path)[0].clients, client) for path in splits),
        attacks=attacks,
    )
    names = name_defenses(defenses)
    return draw_bound(compared, client=client, delta=delta, embedder=embedder, names=names, clients=clients)
