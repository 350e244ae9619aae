"""The arguments that this program was called with, as run records keep them."""

import sys

ARGUMENTS = "leakpipe.arguments"  # where the command line keeps them for its commands


def called_with() -> list[str] | None:
    """Arguments of the `leakpipe` command that runs now; None in a program that is not one.

    click is asked only where it is loaded: the engine also runs without it.
    """
    click = sys.modules.get("click")
    context = click.get_current_context(silent=True) if click else None
    return context.meta.get(ARGUMENTS) if context else None
