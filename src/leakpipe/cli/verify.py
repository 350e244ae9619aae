"""`leakpipe verify`: are results on disk those that the recorded parameters, code, data and environment produce?"""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from leakpipe.cli.options import InputFile
from leakpipe.cli.terminal import progress_bar

if TYPE_CHECKING:
    from leakpipe.records.verification.results import Results


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--params",
    "config_files",
    type=InputFile,
    multiple=True,
    help="Parameters that the results should be of: params.yaml, then overlays; else the files that made them.",
)
@click.option("--cells", type=click.IntRange(min=0), default=1, show_default=True, help="Attacks to run again.")
@click.option("--federation", is_flag=True, help="Run a federation again, too.")
@click.option("--seed", type=int, help="Draw at random what is run again; without it, what ran the shortest.")
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    show_default="0.1 for attacks, 0.001 for federations",
    help="Root mean square of a tensor's difference, relative to its largest value, that is allowed where processor or "
    "packages are others; else bytes must be the same.",
)
def verify(
    folder: Path,
    config_files: tuple[Path, ...],
    cells: int,
    federation: bool,
    seed: int | None,
    tolerance: float | None,
) -> None:
    """Say whether the results in FOLDER (results/<experiment>) are what their records say.

    Checks every file against the run records and the RO-Crate, the records against the parameters and this code, and
    runs sampled jobs again in a temporary folder. Ends with 1 if anything differs.
    """
    from leakpipe.errors import LeakpipeError
    from leakpipe.records.verification.results import read_results

    results = read_results(folder)
    found = 0
    for said in chain(
        _check(results, config_files),
        _run_again(results, cells=cells, federation=federation, seed=seed, tolerance=tolerance),
    ):
        click.echo(f"Differs: {said}")
        found += 1
    if found:
        raise LeakpipeError(f"{folder}: {found} {'thing differs' if found == 1 else 'things differ'}, see above")
    click.echo(f"{folder}: verified")


def _check(results: "Results", config_files: tuple[Path, ...]) -> Iterator[str]:
    """All that can be said without running anything."""
    from leakpipe.experiment import load_params
    from leakpipe.records.run_record import describe_machine, package_versions
    from leakpipe.records.verification.checks import (
        check_code,
        check_config,
        check_files,
        check_params,
        differing_environment,
    )

    with progress_bar(len(results.files()), "verify", "file") as bar:
        hashes = results.hash_files(bar.update)
    yield from check_files(results, hashes)
    yield from check_params(results)
    files = config_files or results.config_files()
    if files:
        yield from check_config(results, load_params(*files), source=" + ".join(map(str, files)))
    yield from check_code(results)
    here = {**describe_machine(), "versions": package_versions()}
    others = {
        said for record in results.records.values() for said in differing_environment(record["environment"], here)
    }
    for said in sorted(others):
        click.echo(f"Note: another environment: {said}")
    click.echo(f"{results.folder}: {len(hashes)} files of {len(results.records)} jobs checked")


def _run_again(
    results: "Results", *, cells: int, federation: bool, seed: int | None, tolerance: float | None
) -> Iterator[str]:
    """Run sampled jobs again, say how each went, yield what differs."""
    from leakpipe.errors import LeakpipeError
    from leakpipe.records.verification.replay import replay, sample_jobs

    sampled = [
        *sample_jobs(results, "invert", count=cells, seed=seed),
        *sample_jobs(results, "federate", count=int(federation), seed=seed),
    ]
    for name in sampled:
        try:
            job = replay(results, name, tolerance=tolerance)
        except LeakpipeError as error:
            yield str(error)
            continue
        findings = job.findings(results)
        yield from findings
        if not findings:
            outcome = f"within {job.tolerance:g} ({job.largest.size:.2g})" if job.differences else "the same bytes"
            click.echo(f"{results.place(name)}: run again in {job.seconds:.0f} s: {outcome}")
