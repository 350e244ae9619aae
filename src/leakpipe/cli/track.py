"""`leakpipe track`: run records into MLflow."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from leakpipe.cli.options import InputFile, JsonOrFile, OutputFile
from leakpipe.cli.terminal import progress_bar, say


@click.command()
@click.argument("records", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True), metavar="RECORD...")
@click.option("--experiment", help="Name of the experiment  [default: the one in the records]")
@click.option("--params", type=JsonOrFile(), help="All parameters of the experiment (JSON, or a YAML file).")
@click.option("--metrics", type=InputFile, help="Headline numbers (metrics.json, written by `leakpipe collect`).")
@click.option("--artifact", "artifacts", type=InputFile, multiple=True, help="Figure or table to upload; repeatable.")
@click.option("--uri", help="Address of MLflow  [default: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db]")
@click.option("--out", type=OutputFile, help="Write a summary (JSON) here.")
@click.option("--best-effort", is_flag=True, help="If MLflow does not answer, print a warning and exit with 0.")
@click.option("--attempt", type=click.IntRange(min=0), default=0, help="Number to repeat in --out (for Snakemake).")
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
    """Add run records to MLflow. RECORD is a run record, or a folder that holds run records at any depth.

    Runs that MLflow already has are left alone, so the command can be repeated at any time:
    leakpipe track results/default/records
    """
    from leakpipe.files.storage import read_json, write_json
    from leakpipe.tracking.store import MlflowUnreachableError, choose_uri, how_to_look, without_credentials
    from leakpipe.tracking.upload import TrackingSummary, common_experiment, find_records, track_records

    found = find_records(records)
    name = experiment or common_experiment(found)
    headline = read_json(metrics) if metrics else None
    shown, clock, reached = without_credentials(choose_uri(uri)), time.perf_counter(), True
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
        if not best_effort:
            raise
        summary, reached = TrackingSummary(notes=(str(error),)), False
        say(f"Warning: {error}")
    else:
        for note in summary.notes:
            say(f"Note: {note}", err=True)
        say(f"{name}: {summary.runs_added} runs added, {summary.runs_already_there} already there, in MLflow")
        say(how_to_look(shown, summary.experiment_id))
    if out:
        seconds = round(time.perf_counter() - clock, 2)
        write_json(out, {"uri": shown, "reached": reached, **asdict(summary), "seconds": seconds, "attempt": attempt})
