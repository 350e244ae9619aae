"""`leakpipe watch`: curves of running attacks into MLflow."""

import time
from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), required=False)
@click.option("--uri", help="Where MLflow is  [default: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db]")
@click.option("--every", type=click.FloatRange(min=1), default=10, show_default=True, help="Seconds between two looks.")
@click.option("--once", is_flag=True, help="Look once and end.")
def watch(folder: Path | None, uri: str | None, every: float, once: bool) -> None:
    """Show the curves of attacks in MLflow while they run; Ctrl-C ends it.

    Call it in the project's folder, beside a running snakemake. FOLDER is where attacks are saved; by default, where
    the pipeline's are.

    An attack appears with its first checkpoint, after 30 seconds, as a run that is RUNNING. Killed, it stays RUNNING,
    for the next snakemake goes on with it. `leakpipe track`, which ends every snakemake, puts the finished run in its
    place. An MLflow that is away is tried again at the next look.
    """
    from leakpipe.attacks.progress import CHECKPOINTS_FOLDER
    from leakpipe.tracking.store import MlflowUnreachableError, choose_uri, how_to_look

    folder = folder or CHECKPOINTS_FOLDER
    click.echo(f"Watching the attacks in {folder}. {how_to_look(choose_uri(uri))}")
    warned = ""
    try:
        while not once:
            try:
                _look(folder, uri)
                warned = ""
            except MlflowUnreachableError as error:
                if str(error) != warned:
                    click.echo(f"Warning: {error}. It is tried again every {every:g} seconds.")
                warned = str(error)
            time.sleep(every)
        _look(folder, uri)
    except KeyboardInterrupt:
        click.echo("Stopped watching; the attacks go on.")


def _look(folder: Path, uri: str | None) -> None:
    from leakpipe.attacks.progress import read_progress
    from leakpipe.tracking.live import log_progress

    if added := log_progress(read_progress(folder), uri=uri):
        click.echo(f"{time.strftime('%H:%M:%S')} new points: {added}")
