"""placeholder"""

import click


@click.command()
def stage() -> None:
    """x."""
