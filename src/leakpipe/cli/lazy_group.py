"""A group of commands that imports only the one that is called: every job is a process of its own."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click


class LazyGroup(click.Group):
    """Commands by name; the command `a-name` is what the module `leakpipe.cli.<prefix>a_name` calls `<prefix>a_name`.

    Args:
        names: Of the commands, in the order in which help lists them.
        prefix: What the names of their modules begin with.
    """

    def __init__(self, *args: Any, names: Sequence[str] = (), prefix: str = "", **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.names, self.prefix = names, prefix

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Commands in the order that was given, not of the alphabet."""
        return list(self.names)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, None if there is none of that name."""
        if cmd_name not in self.names:
            return None
        name = self.prefix + cmd_name.replace("-", "_")
        command: click.Command = getattr(import_module(f"leakpipe.cli.{name}"), name)
        return command
