"""`leakpipe crate`: describes the results of an experiment as an RO-Crate."""

from pathlib import Path
from typing import Any

import click

from leakpipe.cli.options import InputFile, OutputFile, settings_option


@click.command()
@click.argument("records", nargs=-1, required=True, type=InputFile, metavar="RECORD...")
@settings_option("params", "All parameters, merged")
@settings_option("citation", "Content of CITATION.cff, with authors and licence of the code")
@click.option("--workflow", required=True, help="Text of the Snakefile.")
@click.option("--params-out", type=OutputFile, required=True, help="Where the parameters go (.json).")
@click.option("--workflow-out", type=OutputFile, required=True, help="Where the Snakefile goes.")
@click.option("--out", type=OutputFile, required=True, help="Where the crate goes: ro-crate-metadata.json.")
def crate(
    records: tuple[Path, ...],
    params: dict[str, Any],
    citation: dict[str, Any],
    workflow: str,
    params_out: Path,
    workflow_out: Path,
    out: Path,
) -> None:
    """Describe the results of an experiment as an RO-Crate, from the run RECORDs of all jobs that made them."""
    from leakpipe.data.datasets import DATASETS
    from leakpipe.errors import LeakpipeError
    from leakpipe.experiment.reading import parse_params
    from leakpipe.files.storage import write_json, write_text
    from leakpipe.records.crate import build_crate
    from leakpipe.records.reading import read_record

    checked, folder = parse_params(params, source="--params"), out.parent
    if folder.name != checked.experiment:
        raise LeakpipeError(f"--out: {out}: expected a file in a folder named {checked.experiment!r}, the experiment")
    write_json(params_out, params)
    write_text(workflow_out, workflow)
    read = {path: read_record(path) for path in records}
    data = checked.data.dataset, DATASETS[checked.data.dataset]
    write_json(out, build_crate(folder, read, params_out, workflow_out, data=data, citation=citation))
