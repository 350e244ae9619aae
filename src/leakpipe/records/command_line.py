"""The arguments of the running command, for its run record."""

import sys

ARGUMENTS = "leakpipe.arguments"  # where the command line keeps them for its commands


def called_with() -> list[str] | None:
    """Returns the arguments of the running `leakpipe` command; None in any other program.

    click is not imported for this: the library also runs without it.
    """
    click = sys.modules.get("click")
    context = click.get_current_context(silent=True) if click else None
    return context.meta.get(ARGUMENTS) if context else None
