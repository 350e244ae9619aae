"""`leakpipe plot`: the figures. Each has a module of its own, so that editing one redraws only that one."""

import click

from leakpipe.cli.lazy_group import LazyGroup

FIGURES = (
    *("overview", "reconstructions", "maps", "rounds", "noise", "clients", "identifiability", "tradeoff"),
    *("front", "bound", "effect", "attacks"),
)


@click.group(cls=LazyGroup, names=FIGURES, prefix="plot_")
def plot() -> None:
    """Draw a figure from the tables, as SVG and PNG, with its caption."""
