"""`leakpipe`: the group of all commands, and how errors reach the user."""

import atexit
import gc
from importlib import import_module
from typing import Any

import click

from leakpipe import __version__
from leakpipe.errors import LeakpipeError
from leakpipe.records.command_line import ARGUMENTS

# In the order data flows.
COMMANDS = (
    *("check", "fetch", "prepare-data", "split-data", "pretrain", "federate", "invert"),
    *("score", "identify", "collect", "judge", "plot", "report", "crate"),
    *("verify", "track", "watch", "stage"),
)


class _Commands(click.Group):
    """Imports only the command that is called (every job is a process of its own), and says errors in one sentence.

    The command `a-name` is what the module `leakpipe.cli.a_name` calls `a_name`. A `LeakpipeError` ends with exit code
    1; usage errors end with 2.
    """

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Commands in the order data flows, not of the alphabet."""
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        command: click.Command = getattr(import_module(f"leakpipe.cli.{name}"), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        # At its end Python would run the garbage collector over all that was imported, which takes tenths of a second.
        atexit.register(gc.freeze)
        try:
            return super().invoke(ctx)
        except LeakpipeError as error:
            raise click.ClickException(str(error)) from error

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
