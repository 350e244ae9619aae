"""`leakpipe watch`: curves of running attacks into MLflow."""

import time
from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), required=False)
@click.option("--uri", help="Address of MLflow  [default: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db]")
@click.option("--every", type=click.FloatRange(min=1), default=10, show_default=True, help="Seconds between updates.")
@click.option("--once", is_flag=True, help="Update once and exit.")
def watch(folder: Path | None, uri: str | None, every: float, once: bool) -> None:
    """Show the curves of attacks in MLflow while they run, until Ctrl-C.

    Run it in the project's folder, beside a running snakemake. FOLDER is where the attacks save their checkpoints; by
    default, the pipeline's folder.

    An attack appears with its first checkpoint, after 30 seconds, as a run that is RUNNING. It stays RUNNING if the
    attack is killed, because the next snakemake continues it. `leakpipe track`, the last step of every snakemake,
    replaces it by the finished run. If MLflow does not answer, the next update tries again.
    """
    from leakpipe.attacks.progress import CHECKPOINTS_FOLDER, read_progress
    from leakpipe.tracking.live import log_progress
    from leakpipe.tracking.store import MlflowUnreachableError, choose_uri, how_to_look, newest_experiment

    folder = folder or CHECKPOINTS_FOLDER
    click.echo(f"Watching the attacks in {folder}.")
    warned, shown = "", False
    try:
        while True:
            try:
                if added := log_progress(read_progress(folder), uri=uri):
                    click.echo(f"{time.strftime('%H:%M:%S')} new points: {added}")
                    if not shown:
                        click.echo(how_to_look(choose_uri(uri), newest_experiment(choose_uri(uri))))
                    shown = True
                warned = ""
            except MlflowUnreachableError as error:
                if once:
                    raise
                if str(error) != warned:
                    click.echo(f"Warning: {error}. The next attempts follow every {every:g} seconds.")
                warned = str(error)
            if once:
                return
            time.sleep(every)
    except KeyboardInterrupt:
        click.echo("Stopped watching; the attacks continue.")
