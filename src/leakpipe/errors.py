"""The one error that leakpipe raises for something a user can mend."""


class LeakpipeError(Exception):
    """Bad input, said in one sentence: the file, the field, the value, and what was expected.

    The command line prints the sentence and exits with 1; it never shows a traceback for it.
    """
