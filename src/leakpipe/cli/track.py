"""`leakpipe track`: run records into MLflow."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from leakpipe.cli.options import InputFile, JsonOrFile, OutputFile
from leakpipe.cli.terminal import progress_bar


@click.command()
@click.argument("records", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True), metavar="RECORD...")
@click.option("--experiment", help="Name of the experiment  [default: what the records say]")
@click.option("--params", type=JsonOrFile(), help="All parameters of the experiment (JSON, or a YAML file).")
@click.option("--metrics", type=InputFile, help="Headline numbers (collect's metrics.json).")
@click.option("--artifact", "artifacts", type=InputFile, multiple=True, help="Figure or table to keep; repeatable.")
@click.option("--uri", help="Where MLflow is  [default: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db]")
@click.option("--out", type=OutputFile, help="Write what was done (JSON) here.")
@click.option("--best-effort", is_flag=True, help="If MLflow does not answer, say so and exit with 0.")
@click.option("--attempt", type=click.IntRange(min=0), default=0, help="Number that --out repeats (for Snakemake).")
def track(
    records: tuple[Path, ...],
    experiment: str | None,
    params: dict[str, Any] | None,
    metrics: Path | None,
    artifacts: tuple[Path, ...],
    uri: str | None,
    out: Path | None,
    best_effort: bool,
    attempt: int,
) -> None:
    """Add run records to MLflow: RECORD is a run record or a folder with some anywhere below it.

    Runs that MLflow has already are left alone, so this can be called at any time:
    leakpipe track results/default/records
    """
    from leakpipe.files.storage import read_json, write_json
    from leakpipe.tracking.store import MlflowUnreachableError, choose_uri, how_to_look, without_credentials
    from leakpipe.tracking.upload import TrackingSummary, common_experiment, find_records, track_records

    found = find_records(records)
    name = experiment or common_experiment(found)
    headline = read_json(metrics) if metrics else None
    shown, clock = without_credentials(choose_uri(uri)), time.perf_counter()
    try:
        with progress_bar(len(found), "track", "run") as bar:
            summary = track_records(
                found,
                experiment=name,
                uri=uri,
                params=params,
                metrics=headline,
                artifacts=artifacts,
                on_record=bar.update,
            )
    except MlflowUnreachableError as error:
        summary = TrackingSummary(
            shown, reached=False, notes=(str(error),), seconds=round(time.perf_counter() - clock, 2)
        )
        if not best_effort:
            raise
        click.echo(f"Warning: {error}")
    else:
        for note in summary.notes:
            click.echo(f"Note: {note}", err=True)
        click.echo(f"{name}: {summary.runs_added} runs added, {summary.runs_already_there} already there, in MLflow")
        click.echo(how_to_look(shown))
    if out:
        write_json(out, {**asdict(summary), "attempt": attempt})
