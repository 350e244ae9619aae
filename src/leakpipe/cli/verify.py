"""`leakpipe verify`: checks that results on disk are what the recorded parameters, code and data produce."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from leakpipe.cli.options import InputFile
from leakpipe.cli.terminal import progress_bar, say

if TYPE_CHECKING:
    from leakpipe.records.verification.results import Results


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--params",
    "config_files",
    type=InputFile,
    multiple=True,
    help="Parameters to compare with: params.yaml, then overlays. Default: the files that the results were made from.",
)
@click.option(
    "--cells", type=click.IntRange(min=0), default=1, show_default=True, help="Number of attacks to run again."
)
@click.option("--federation", is_flag=True, help="Also run a federation again.")
@click.option("--seed", type=int, help="Seed for drawing the jobs to run again at random. Default: the shortest jobs.")
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    show_default="0.1 for attacks, 0.001 for federations",
    help="Root mean square of a tensor's difference, relative to its largest value, that is allowed where processor or "
    "packages have changed; otherwise bytes must be equal.",
)
def verify(
    folder: Path,
    config_files: tuple[Path, ...],
    cells: int,
    federation: bool,
    seed: int | None,
    tolerance: float | None,
) -> None:
    """Check that the results in FOLDER (results/<experiment>) are what their records describe.

    Every file is compared with the run records and the RO-Crate, and the records with the parameters and with this
    code; sampled jobs run again in a temporary folder. The exit code is 1 if anything differs.
    """
    from leakpipe.errors import LeakpipeError
    from leakpipe.records.verification.results import read_results

    results = read_results(folder)
    found = 0
    for said in chain(
        _check(results, config_files),
        _run_again(results, cells=cells, federation=federation, seed=seed, tolerance=tolerance),
    ):
        say(f"Differs: {said}")
        found += 1
    if found:
        raise LeakpipeError(f"{folder}: {found} {'thing differs' if found == 1 else 'things differ'}, see above")
    say(f"{folder}: verified")


def _check(results: "Results", config_files: tuple[Path, ...]) -> Iterator[str]:
    """Yields what differs, as far as that is known without running anything."""
    from leakpipe.experiment.reading import load_params
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
        say(f"Note: another environment: {said}")
    say(f"{results.folder}: {len(hashes)} files of {len(results.records)} jobs checked")


def _run_again(
    results: "Results", *, cells: int, federation: bool, seed: int | None, tolerance: float | None
) -> Iterator[str]:
    """Runs sampled jobs again, prints the outcome of each, and yields what differs."""
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
            say(f"{results.place(name)}: run again in {job.seconds:.0f} s: {outcome}")
