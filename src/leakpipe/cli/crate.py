"""`leakpipe crate`: the results of an experiment as an RO-Crate, and the parameters that they come from."""

from pathlib import Path
from typing import Any

import click

from leakpipe.cli.options import InputFile, OutputFile, settings_option


@click.command()
@click.argument("records", nargs=-1, required=True, type=InputFile, metavar="RECORD...")
@settings_option("params", "All parameters, merged")
@click.option("--citation", type=InputFile, required=True, help="CITATION.cff: authors and licence of the code.")
@click.option("--params-out", type=OutputFile, required=True, help="Where the parameters go (.json).")
@click.option("--out", type=OutputFile, required=True, help="Where the crate goes: ro-crate-metadata.json.")
def crate(records: tuple[Path, ...], params: dict[str, Any], citation: Path, params_out: Path, out: Path) -> None:
    """Describe results as an RO-Crate: RECORD is the run record of a job, of every job that made them."""
    from leakpipe.data.datasets import DATASETS
    from leakpipe.experiment import parse_params
    from leakpipe.files.storage import write_json
    from leakpipe.params.reading import read_yaml
    from leakpipe.records.crate import About, build_crate
    from leakpipe.records.run_record import read_record

    checked = parse_params(params, source="--params")
    data_set = DATASETS[checked.data.dataset]
    about = About(
        experiment=checked.experiment,
        data_set=checked.data.dataset,
        source=data_set.source,
        licence=data_set.licence,
        data_citation=data_set.citation,
        citation=read_yaml(citation),
    )
    write_json(params_out, params)
    write_json(out, build_crate(out.parent, {path: read_record(path) for path in records}, params_out, about))
