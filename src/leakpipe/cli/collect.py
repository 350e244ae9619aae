"""`leakpipe collect`: all scores, look-ups and accuracies in tidy tables, and the headline numbers."""

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
@click.option("--identification", "found", type=InputFile, multiple=True, help="identify's output; repeatable.")
@click.option("--top", type=click.IntRange(min=1), multiple=True, help="With --identification: k of its top-k columns.")
@click.option("--leakage-csv", type=OutputFile, required=True, help="One row per true image.")
@click.option("--leakage-parquet", type=OutputFile, required=True, help="The same as Parquet.")
@click.option("--accuracy-csv", type=OutputFile, required=True, help="One row per round.")
@click.option("--identifiability-csv", type=OutputFile, help="With --identification: one row per image and embedder.")
@click.option("--metrics", type=OutputFile, required=True, help="Summary of all tables (.json).")
@click.option("--headline", type=OutputFile, help="The few numbers of it that fit on a line (.json).")
@record_options
def collect(
    scores: tuple[Path, ...],
    attacks: tuple[Path, ...],
    accuracies: tuple[Path, ...],
    found: tuple[Path, ...],
    top: tuple[int, ...],
    leakage_csv: Path,
    leakage_parquet: Path,
    accuracy_csv: Path,
    identifiability_csv: Path | None,
    metrics: Path,
    headline: Path | None,
    record: Path | None,
    labels: dict[str, Any],
) -> None:
    """Collect scores, timings, look-ups and accuracies into tables."""
    if len({bool(found), bool(top), bool(identifiability_csv)}) > 1:
        raise click.UsageError("--identification, --top and --identifiability-csv go together")
    from leakpipe.files.storage import write_json
    from leakpipe.records.reading import read_record
    from leakpipe.records.run_record import record_run
    from leakpipe.tables.headline import shorten, summarize
    from leakpipe.tables.table import (
        ACCURACY_COLUMNS,
        SCORE_COLUMNS,
        collect_accuracy,
        collect_identifiability,
        collect_leakage,
        identifiability_columns,
        read_table,
        write_table,
    )

    with record_run(record, rule="collect", labels=labels, params={}) as run:
        timed = [attack for path in attacks for attack in read_record(path)["details"]["attacks"]]
        leakage = collect_leakage((read_table(path, SCORE_COLUMNS) for path in scores), timed)
        accuracy = collect_accuracy(read_table(path, ACCURACY_COLUMNS) for path in accuracies)
        write_table(leakage_csv, leakage)
        write_table(leakage_parquet, leakage)
        write_table(accuracy_csv, accuracy)
        run.artifacts += [str(leakage_csv), str(accuracy_csv)]
        looked_up = None
        if identifiability_csv:
            looked_up = collect_identifiability(
                (read_table(path, identifiability_columns(top)) for path in found), top=top
            )
            write_table(identifiability_csv, looked_up)
            run.artifacts.append(str(identifiability_csv))
        summary = summarize(leakage, accuracy, looked_up)
        write_json(metrics, summary)
        if headline:
            write_json(headline, shorten(summary))
