"""`leakpipe collect`: all scores and accuracies in two tidy tables, and the headline numbers."""

from pathlib import Path
from typing import Any

import click

from leakpipe.cli.options import InputFile, OutputFile, record_options


@click.command()
@click.option("--score", "scores", type=InputFile, multiple=True, required=True, help="Score table; repeatable.")
@click.option(
    "--attack-record", "attacks", type=InputFile, multiple=True, required=True, help="Run record of an attack."
)
@click.option("--accuracy", "accuracies", type=InputFile, multiple=True, required=True, help="Accuracy history.")
@click.option("--leakage-csv", type=OutputFile, required=True, help="One row per true image.")
@click.option("--leakage-parquet", type=OutputFile, required=True, help="The same as Parquet.")
@click.option("--accuracy-csv", type=OutputFile, required=True, help="One row per round.")
@click.option("--metrics", type=OutputFile, required=True, help="Headline numbers (.json).")
@record_options
def collect(
    scores: tuple[Path, ...],
    attacks: tuple[Path, ...],
    accuracies: tuple[Path, ...],
    leakage_csv: Path,
    leakage_parquet: Path,
    accuracy_csv: Path,
    metrics: Path,
    record: Path | None,
    labels: dict[str, Any],
) -> None:
    """Collect scores, timings and accuracies into tables."""
    from leakpipe.files.storage import write_json
    from leakpipe.records.run_record import read_record, record_run
    from leakpipe.tables.headline import summarize
    from leakpipe.tables.table import (
        ACCURACY_COLUMNS,
        SCORE_COLUMNS,
        collect_accuracy,
        collect_leakage,
        read_table,
        write_table,
    )

    with record_run(record, rule="collect", labels=labels, params={}) as run:
        timed = [attack for path in attacks for attack in read_record(path)["details"]["attacks"]]
        leakage = collect_leakage((read_table(path, SCORE_COLUMNS) for path in scores), timed)
        accuracy = collect_accuracy(read_table(path, ACCURACY_COLUMNS) for path in accuracies)
        headline = summarize(leakage, accuracy)
        write_table(leakage_csv, leakage)
        write_table(leakage_parquet, leakage)
        write_table(accuracy_csv, accuracy)
        write_json(metrics, headline)
        run.artifacts += [str(leakage_csv), str(accuracy_csv)]
