"""`leakpipe compare-defenses`: what each defence hides, costs and guarantees, as a table."""

from pathlib import Path
from typing import Any

import click

from leakpipe.cli.options import InputFile, OutputFile, record_options


@click.command("compare-defenses")
@click.option("--leakage", type=InputFile, required=True, help="The leakage table (collect's output).")
@click.option("--accuracy", type=InputFile, required=True, help="The accuracy table (collect's output).")
@click.option("--privacy", type=InputFile, required=True, help="What is guaranteed (account's output).")
@click.option("--images", type=InputFile, required=True, help="The data set (prepare-data's output).")
@click.option("--split", "splits", type=InputFile, multiple=True, required=True, help="A seed's split; repeatable.")
@click.option("--client", required=True, help="Client whose leak counts.")
@click.option(
    "--defense", "defenses", multiple=True, required=True, help="Defence; accuracy is lost against the first."
)
@click.option("--adaptive", multiple=True, help="Attack that is told the defence; repeatable.")
@click.option("--out", type=OutputFile, required=True, help="Where the table goes (.csv).")
@record_options
def compare_defenses(
    leakage: Path,
    accuracy: Path,
    privacy: Path,
    images: Path,
    splits: tuple[Path, ...],
    client: str,
    defenses: tuple[str, ...],
    adaptive: tuple[str, ...],
    out: Path,
    record: Path | None,
    labels: dict[str, Any],
) -> None:
    """Write one row per defence, the most accurate of those that hide the client's images first."""
    import numpy as np

    from leakpipe.accounting.table import PRIVACY_COLUMNS
    from leakpipe.data.files import load_dataset, load_split
    from leakpipe.records.run_record import record_run
    from leakpipe.tables.defenses import compare_defenses as compare
    from leakpipe.tables.table import ACCURACY_COLUMNS, LEAKAGE_COLUMNS, read_table, write_table

    with record_run(record, rule="compare_defenses", labels=labels, params={"client": client}) as run:
        classes = load_dataset(images).labels
        tested = [classes[list(load_split(path)[0].test)] for path in splits]
        table = compare(
            read_table(leakage, LEAKAGE_COLUMNS),
            read_table(accuracy, ACCURACY_COLUMNS),
            read_table(privacy, PRIVACY_COLUMNS),
            client=client,
            defenses=defenses,
            adaptive=adaptive,
            chance=float(np.mean([np.bincount(part).max() / len(part) for part in tested])),
            test_images=len(tested[0]),
        )
        write_table(out, table)
        run.artifacts.append(str(out))
