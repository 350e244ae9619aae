"""`leakpipe split-data`: split a data set by seed, and make the prior images of its public part."""

from pathlib import Path
from typing import Any

import click

from leakpipe.cli.options import InputFile, OutputFile, record_options, settings_option


@click.command()
@settings_option("data-params", "The `data` section")
@settings_option("clients", "The `federation.clients` section")
@click.option("--images", type=InputFile, required=True, help="The data set (prepare-data's output).")
@click.option("--seed", type=click.IntRange(min=0), required=True, help="Seed of the split.")
@click.option("--split", type=OutputFile, required=True, help="Where the split goes (.json).")
@click.option("--prior", type=OutputFile, required=True, help="Where the prior images go (.safetensors).")
@record_options
def split_data(
    data_params: dict[str, Any],
    clients: dict[str, Any],
    images: Path,
    seed: int,
    split: Path,
    prior: Path,
    record: Path | None,
    labels: dict[str, Any],
) -> None:
    """Split a data set into clients, validation, test and public part."""
    from leakpipe.data.datalists import split_by_datalists
    from leakpipe.data.files import load_dataset, save_split
    from leakpipe.data.partition import split_dataset
    from leakpipe.data.priors import average_public_images, save_priors
    from leakpipe.params.data import DataParams
    from leakpipe.params.federation import ClientParams
    from leakpipe.params.reading import parse_section
    from leakpipe.records.run_record import record_run

    params = {"data": data_params, "clients": clients, "seed": seed}
    with record_run(record, rule="split_data", labels=labels, params=params):
        dataset = load_dataset(images)
        data = parse_section(DataParams, data_params, source="--data-params")
        holding = {
            name: parse_section(ClientParams, client, source=f"--clients: {name}") for name, client in clients.items()
        }
        if data.datalists:
            parts = split_by_datalists(dataset, data, holding, seed=seed)
        else:
            parts = split_dataset(dataset.labels, dataset.classes, data, holding, seed=seed)
        save_split(split, parts, seed=seed)
        save_priors(
            prior,
            average_public_images(dataset.images, dataset.labels, parts.public, dataset.classes),
            seed=seed,
        )
