"""`leakpipe prepare-data`: load a data set and store it at the size it is used at."""

from pathlib import Path
from typing import Any

import click

from leakpipe.cli.options import OutputFile, record_options


@click.command()
@click.option("--dataset", required=True, help="Registered data set.")
@click.option("--image-size", type=click.IntRange(min=16), required=True, help="Height and width in pixels.")
@click.option("--out", type=OutputFile, required=True, help="Where the images go (.safetensors).")
@record_options
def prepare_data(dataset: str, image_size: int, out: Path, record: Path | None, labels: dict[str, Any]) -> None:
    """Load a data set, resize it, store it."""
    from leakpipe.data.datasets import DATASETS
    from leakpipe.data.files import StoredDataset, save_dataset
    from leakpipe.provenance import record_run

    params = {"dataset": dataset, "image_size": image_size}
    with record_run(record, rule="prepare_data", labels=labels, params=params) as run:
        entry = DATASETS[dataset]
        images, classes = entry.load(image_size)
        save_dataset(out, StoredDataset(images, classes, entry.classes))
        run.metrics["images"] = len(images)
