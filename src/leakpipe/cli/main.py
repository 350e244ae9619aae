"""`leakpipe`: the group of all commands, and how errors reach the user."""

import atexit
import gc
from typing import Any

import click

from leakpipe import __version__
from leakpipe.cli.lazy_group import LazyGroup
from leakpipe.errors import LeakpipeError
from leakpipe.records.command_line import ARGUMENTS

# In the order data flows.
COMMANDS = (
    *("check", "fetch", "prepare-data", "split-data", "pretrain", "federate", "invert"),
    *("score", "collect", "identify", "collect-identifiability", "compare", "judge-claims", "compare-attacks"),
    *("account", "compare-defenses"),
    *("plot", "report", "crate", "verify", "track", "watch", "stage"),
)


class _Commands(LazyGroup):
    """Shows a `LeakpipeError` as one sentence with exit code 1 (usage errors exit with 2)."""

    def invoke(self, ctx: click.Context) -> Any:
        # When Python ends, its garbage collector would look once more at all that was imported: tenths of a second.
        atexit.register(gc.freeze)
        try:
            return super().invoke(ctx)
        except LeakpipeError as error:
            raise click.ClickException(str(error)) from error

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the arguments for run records, which say how to run a job again."""
        ctx.meta[ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)


@click.group(cls=_Commands, names=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="leakpipe")
def main() -> None:
    """Measure how much private training data leaks out of federated learning.

    Snakemake runs these commands for you (`snakemake`, or `make reproduce`); each also works by hand.
    """
