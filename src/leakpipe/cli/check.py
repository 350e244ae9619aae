"""`leakpipe check`: checks that params.yaml and its overlays describe an experiment that can run."""

from pathlib import Path

import click

from leakpipe.cli.options import InputFile


@click.command()
@click.argument("params", nargs=-1, type=InputFile, required=True)
def check(params: tuple[Path, ...]) -> None:
    """Check PARAMS (params.yaml, then overlays; later files override) and print how many jobs the experiment has."""
    from leakpipe.experiment import list_cells, load_params

    checked = load_params(*params)
    cells = list_cells(checked)
    captured = len(checked.federation.captured_rounds)
    click.echo(
        f"{checked.experiment}: {len(checked.defenses) * len(checked.seeds)} federations, "
        f"{len(cells)} attack jobs, {len(cells) * captured} attacks"
    )
