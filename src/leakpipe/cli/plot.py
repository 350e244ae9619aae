"""`leakpipe plot`: the figures. Each has a module of its own, so that editing one redraws only that one."""

import click

from leakpipe.cli.plot_attacks import plot_attacks
from leakpipe.cli.plot_identifiability import plot_identifiability
from leakpipe.cli.plot_noise import plot_noise
from leakpipe.cli.plot_reconstructions import plot_reconstructions
from leakpipe.cli.plot_rounds import plot_rounds


@click.group()
def plot() -> None:
    """Draw a figure from the tables, as SVG and PNG, with its caption."""


for command in (plot_reconstructions, plot_rounds, plot_noise, plot_attacks, plot_identifiability):
    plot.add_command(command)
