"""`leakpipe split-data`: splits a data set by seed and averages its public part to prior images."""

from pathlib import Path
from typing import Any

import click

from leakpipe.cli.cells import Cells, each_option
from leakpipe.cli.options import InputFile, OutputFile, record_options, settings_option


@click.command()
@settings_option("data-params", "The `data` section")
@settings_option("clients", "The `federation.clients` section")
@click.option("--images", type=InputFile, required=True, help="The data set (output of prepare-data).")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the split  [default: the label `seed`]")
@click.option("--split", type=OutputFile, required=True, help="Where the split goes (.json).")
@click.option("--prior", type=OutputFile, required=True, help="Where the prior images go (.safetensors).")
@each_option
@record_options
def split_data(
    data_params: dict[str, Any],
    clients: dict[str, Any],
    images: Path,
    seed: int | None,
    split: Path,
    prior: Path,
    each: list[dict[str, str]],
    record: Path | None,
    labels: dict[str, str],
) -> None:
    """Split a data set into clients, validation, test and public part, and average the public images."""
    from leakpipe.data.datalists import find_datalists, split_by_datalists
    from leakpipe.data.files import load_dataset, save_split
    from leakpipe.data.partition import split_dataset
    from leakpipe.data.priors import average_public_images, save_priors
    from leakpipe.params.data import DataParams
    from leakpipe.params.federation import ClientParams
    from leakpipe.params.reading import parse_section

    params = {"data": data_params, "clients": clients}
    data = parse_section(DataParams, data_params, source="--data-params")
    holding = {
        name: parse_section(ClientParams, client, source=f"--clients: {name}") for name, client in clients.items()
    }
    inputs = [images, *find_datalists(data)]
    cells = Cells("split_data", each=each, labels=labels, record=record, settings=params, inputs=inputs)
    for cell in cells:
        drawn = _require_seed(seed if seed is not None else cell.labels.get("seed"))
        with cells.recording(cell, {**params, "seed": drawn}):
            dataset = load_dataset(images)
            if data.datalists:
                parts = split_by_datalists(dataset, data, holding, seed=drawn)
            else:
                parts = split_dataset(*dataset.strata, data, holding, seed=drawn)
            save_split(cell.fill(split), parts, seed=drawn)
            priors = average_public_images(dataset, parts.public)
            save_priors(cell.fill(prior), priors, seed=drawn, public=dataset.images[list(parts.public)])


def _require_seed(seed: int | str | None) -> int:
    if seed is None or not str(seed).isdigit():
        raise click.UsageError(f"--seed: {seed!r}, expected a whole number, here or as the label `seed`")
    return int(seed)
