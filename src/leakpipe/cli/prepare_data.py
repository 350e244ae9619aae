"""`leakpipe prepare-data`: loads a data set and stores it at the size it is used at."""

from pathlib import Path
from typing import Any

import click

from leakpipe.cli.options import OutputFile, record_options, settings_option
from leakpipe.cli.terminal import say


@click.command()
@settings_option("images", "Which images: the `data` section without its parts")
@click.option("--out", type=OutputFile, required=True, help="Where the images go (.safetensors).")
@record_options
def prepare_data(images: dict[str, Any], out: Path, record: Path | None, labels: dict[str, Any]) -> None:
    """Load a data set, resize its images and store them."""
    from leakpipe.data.datasets import DATASETS
    from leakpipe.data.files import save_dataset
    from leakpipe.params.data import ImagesParams
    from leakpipe.params.reading import parse_section
    from leakpipe.records.run_record import record_run

    with record_run(record, rule="prepare_data", labels=labels, params=images) as run:
        params = parse_section(ImagesParams, images, source="--images", known={DATASETS.kind: DATASETS})
        loaded = DATASETS[params.dataset].load(params)
        save_dataset(out, loaded)
        for note in loaded.notes:
            say(note, err=True)
        run.metrics["images"] = len(loaded.images)
