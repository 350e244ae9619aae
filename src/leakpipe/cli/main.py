"""`leakpipe`: the group of all commands, and how errors reach the user."""

from typing import Any

import click

from leakpipe import __version__
from leakpipe.cli.account import account
from leakpipe.cli.check import check
from leakpipe.cli.collect import collect
from leakpipe.cli.collect_identifiability import collect_identifiability
from leakpipe.cli.compare import compare
from leakpipe.cli.compare_attacks import compare_attacks
from leakpipe.cli.compare_defenses import compare_defenses
from leakpipe.cli.crate import crate
from leakpipe.cli.federate import federate
from leakpipe.cli.fetch import fetch
from leakpipe.cli.identify import identify
from leakpipe.cli.invert import invert
from leakpipe.cli.judge_claims import judge_claims
from leakpipe.cli.plot import plot
from leakpipe.cli.prepare_data import prepare_data
from leakpipe.cli.pretrain import pretrain
from leakpipe.cli.report import report
from leakpipe.cli.score import score
from leakpipe.cli.split_data import split_data
from leakpipe.cli.stage import stage
from leakpipe.cli.track import track
from leakpipe.cli.verify import verify
from leakpipe.cli.watch import watch
from leakpipe.command_line import ARGUMENTS
from leakpipe.errors import LeakpipeError


class _Commands(click.Group):
    """Shows a `LeakpipeError` as one sentence with exit code 1 (usage errors exit with 2)."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LeakpipeError as error:
            raise click.ClickException(str(error)) from error

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the arguments for run records, which say how to run a job again."""
        ctx.meta[ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Commands in the order data flows, not of the alphabet."""
        return list(self.commands)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="leakpipe")
def main() -> None:
    """Measure how much private training data leaks out of federated learning.

    Snakemake runs these commands for you (`snakemake`, or `make reproduce`); each also works by hand.
    """


COMMANDS = (
    *(check, fetch, prepare_data, split_data, pretrain, federate, invert),
    *(score, collect, identify, collect_identifiability, compare, judge_claims, compare_attacks),
    *(account, compare_defenses),
    *(plot, report, crate, verify, track, watch, stage),
)
for command in COMMANDS:
    main.add_command(command)
