"""`leakpipe plot`: the figures. Each has a module of its own, so that editing one redraws only that one."""

import click

from leakpipe.cli.plot_attacks import plot_attacks
from leakpipe.cli.plot_bound import plot_bound
from leakpipe.cli.plot_clients import plot_clients
from leakpipe.cli.plot_effect import plot_effect
from leakpipe.cli.plot_front import plot_front
from leakpipe.cli.plot_identifiability import plot_identifiability
from leakpipe.cli.plot_maps import plot_maps
from leakpipe.cli.plot_noise import plot_noise
from leakpipe.cli.plot_overview import plot_overview
from leakpipe.cli.plot_reconstructions import plot_reconstructions
from leakpipe.cli.plot_rounds import plot_rounds
from leakpipe.cli.plot_tradeoff import plot_tradeoff


@click.group()
def plot() -> None:
    """Draw a figure from the tables, as SVG and PNG, with its caption."""


for command in (
    plot_overview,
    plot_reconstructions,
    plot_maps,
    plot_rounds,
    plot_noise,
    plot_clients,
    plot_identifiability,
    plot_tradeoff,
    plot_front,
    plot_bound,
    plot_effect,
    plot_attacks,
):
    plot.add_command(command)
