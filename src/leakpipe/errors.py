"""The one error that leakpipe raises for something that a user can correct."""


class LeakpipeError(Exception):
    """Invalid input, described in one sentence: the file, the field, the value, and what was expected.

    The command line prints the sentence without a traceback and exits with 1.
    """
