"""`leakpipe check`: checks that params.yaml and its overlays describe an experiment that can run, and what it takes."""

import os
from pathlib import Path

import click

from leakpipe.cli.options import InputFile


@click.command()
@click.argument("params", nargs=-1, type=InputFile, required=True)
@click.option(
    "--cores", type=click.IntRange(min=1), help="Cores that the time is estimated for  [default: this machine's]"
)
def check(params: tuple[Path, ...], cores: int | None) -> None:
    """Check parameters; print the number of jobs, and about how much time, memory and disk they take.

    PARAMS is params.yaml, followed by overlays; later files override earlier ones. All mistakes are listed at once.

    The estimate is for a run from nothing. It is rough: the time is that of the default experiment's network on idle
    cores, a lower bound for a deeper one.
    """
    from leakpipe.cli.stage import require_cache
    from leakpipe.experiment.reading import load_params
    from leakpipe.experiment.workload import MILLIONS, estimate

    checked = load_params(*params)
    require_cache()
    cores = cores or os.cpu_count() or 1
    work = estimate(checked)
    click.echo(
        f"{checked.experiment}: {work.federations} federations, {work.cells} cells (one attack on one client), "
        f"{work.attacks} attacks, {work.jobs} jobs"
    )
    least = "more than" if checked.model.name in MILLIONS else "about"
    click.echo(
        f"time:   {least} {_duration(work.core_seconds / cores)} on {cores} idle cores, at the speed measured with "
        "convnet-bn;\n        a deeper network or an attack that knows the defence can take several times as long"
    )
    click.echo(
        f"memory: up to {work.memory_mb / 1000:.1f} GB a job, as requested of Snakemake; {cores} jobs run at a time"
    )
    click.echo(f"disk:   about {_size(work.disk_mb)} in results/{checked.experiment}, from the number of stored values")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(10, round(seconds, -1)):.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 90 * 60 else f"{seconds / 3600:.0f} hours"


def _size(megabytes: float) -> str:
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:.1f} GB"
