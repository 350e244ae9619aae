"""placeholder"""

import click


@click.command()
def track() -> None:
    """x."""
