"""`leakpipe`: the group of all commands, and how errors reach the user."""

import atexit
import gc
import os
from importlib import import_module
from typing import Any

import click

from leakpipe import __version__
from leakpipe.cli.terminal import visible
from leakpipe.errors import LeakpipeError
from leakpipe.records.command_line import ARGUMENTS

# The groups of `leakpipe --help`; within each the order in which data flows. A summary fits on a line of 80 columns.
GROUPS = {
    "Run an experiment": {
        "check": "Check params.yaml and overlays; estimate time, memory, disk.",
        "time-steps": "Time attacks' steps, once, for budgets in seconds.",
        "audit": "Say what a captured update of your federation gives away.",
        "fetch": "Download a data set (docs/data-sets.md describes each).",
    },
    "Stages that Snakemake calls": {
        "prepare-data": "Load a data set, resize its images and store them.",
        "split-data": "Split the images into clients, validation, test, public.",
        "pretrain": "Train the starting model on the public images.",
        "federate": "Run federated averaging and capture clients' updates.",
        "invert": "Reconstruct a client's images from its updates.",
        "read-update": "Read a captured update for an audit.",
        "defend-update": "Apply further defences to an audited update.",
        "assess": "Judge an audit's reconstructions and write its page.",
        "score": "Compare reconstructions with the true images.",
        "identify": "Look reconstructions up among all training images.",
        "collect": "Collect all scores and measurements into tables.",
        "judge": "Compare attacks and defences; judge the paper's claims.",
        "plot": "Draw figures from the tables, as SVG and PNG.",
        "report": "Write the report page.",
        "crate": "Describe all results as an RO-Crate.",
    },
    "Look at results": {
        "verify": "Check that results are what their records describe.",
    },
    "Track and share": {
        "track": "Add the records of finished jobs to MLflow.",
        "watch": "Show curves in MLflow while attacks are running.",
        "stage": "Bring a stage of dvc.yaml up to date (for dvc repro).",
    },
}
COMMANDS = [name for group in GROUPS.values() for name in group]


class _Commands(click.Group):
    """Imports only the command that is called (every job is a process of its own), and prints errors as sentences.

    The command `a-name` is what the module `leakpipe.cli.a_name` calls `a_name`. A `LeakpipeError` ends with exit code
    1; usage errors end with 2.
    """

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Commands in the order data flows, not of the alphabet."""
        return COMMANDS

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        command: click.Command = getattr(import_module(f"leakpipe.cli.{name}"), name)
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands in groups, without importing them."""
        width = max(map(len, COMMANDS))
        for title, group in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), summary) for name, summary in group.items()])

    def invoke(self, ctx: click.Context) -> Any:
        # At its end Python would run the garbage collector over all that was imported, which takes tenths of a second.
        atexit.register(gc.freeze)
        os.environ["MPLBACKEND"] = "agg"  # of a notebook it may be one that is not installed here
        try:
            return super().invoke(ctx)
        except LeakpipeError as error:
            raise click.ClickException(visible(str(error))) from error

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the arguments for run records, which say how to run a job again."""
        ctx.meta[ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="leakpipe")
def main() -> None:
    """Measure how much private training data leaks out of federated learning.

    Snakemake runs these commands for you (`snakemake`, or `make reproduce`); each also works by hand.
    """
