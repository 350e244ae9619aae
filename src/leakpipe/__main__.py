"""`python -m leakpipe` is the command line."""

from leakpipe.cli.main import main

main()
