"""`leakpipe report`: everything a reader needs on one self-contained HTML page."""

from pathlib import Path
from typing import Any

import click

from leakpipe.cli.options import InputFile, OutputFile, record_options, settings_option


class NamedFile(click.ParamType[Any]):
    """`NAME=PATH`."""

    name = "name=path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Path]:
        """Split at the first equals sign."""
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return]
        name, separator, path = value.partition("=")
        if not (name and separator and path):
            self.fail(f"expected NAME=PATH, got {value!r}", param, ctx)
        return name, Path(path)


@click.command()
@settings_option("params", "All parameters, merged")
@click.option("--leakage", type=InputFile, required=True, help="The leakage table (collect's output).")
@click.option("--accuracy", type=InputFile, required=True, help="The accuracy table (collect's output).")
@click.option("--metrics", type=InputFile, required=True, help="Headline numbers (collect's output).")
@click.option(
    "--verdicts", type=InputFile, required=True, help="What may be said of clients and defences (judge's output)."
)
@click.option("--claims", type=InputFile, required=True, help="Verdicts on the claims (judge's output).")
@click.option(
    "--defense-table", type=InputFile, required=True, help="What defences leave, cost and guarantee (judge's output)."
)
@click.option(
    "--figure", "figures", type=NamedFile(), multiple=True, help="SVG or PNG, in the order shown; repeatable."
)
@click.option("--caption", "captions", type=NamedFile(), multiple=True, help="Caption of the figure of that name.")
@click.option("--federation-record", required=True, help="Run records, a path with {defense} and {seed}.")
@click.option(
    "--attack-record", required=True, help="Run records, a path with {defense}, {seed}, {client} and {attack}."
)
@click.option(
    "--images", type=InputFile, help="The data set (prepare-data's output); left out, the page has no pictures."
)
@click.option("--split", "splits", type=InputFile, multiple=True, help="A seed's split; repeatable, with --images.")
@click.option(
    "--reconstruction",
    help="Attacks' outputs, a path with {defense}, {seed}, {round}, {client} and {attack}; needed with --images.",
)
@click.option("--config-file", "config_files", multiple=True, help="File of parameters that was used; repeatable.")
@click.option("--out", type=OutputFile, required=True, help="Where the page goes (.html).")
@record_options
def report(
    params: dict[str, Any],
    leakage: Path,
    accuracy: Path,
    metrics: Path,
    verdicts: Path,
    claims: Path,
    defense_table: Path,
    figures: tuple[tuple[str, Path], ...],
    captions: tuple[tuple[str, Path], ...],
    federation_record: str,
    attack_record: str,
    images: Path | None,
    splits: tuple[Path, ...],
    reconstruction: str | None,
    config_files: tuple[str, ...],
    out: Path,
    record: Path | None,
    labels: dict[str, Any],
) -> None:
    """Write the report page."""
    caption_of = dict(captions)
    missing = [name for name, _ in figures if name not in caption_of]
    if missing:
        raise click.UsageError(f"--figure {missing[0]}=… has no --caption {missing[0]}=…")
    if len({bool(images), bool(splits), bool(reconstruction)}) > 1:
        raise click.UsageError("--images, --split and --reconstruction go together")
    from leakpipe.figures.images import list_files, load_pictures
    from leakpipe.figures.registry import find_figure
    from leakpipe.files.storage import read_json, write_text
    from leakpipe.records.reading import read_record
    from leakpipe.records.run_record import record_run
    from leakpipe.report.page import load_figure, render_page
    from leakpipe.report.pictures import arrange_pictures
    from leakpipe.tables.defenses import DEFENSE_COLUMNS
    from leakpipe.tables.table import ACCURACY_COLUMNS, LEAKAGE_COLUMNS, read_table
    from leakpipe.tables.verdicts import VERDICT_COLUMNS

    comparisons = params.get("comparisons", {})
    with record_run(record, rule="report", labels=labels, params={"config_files": list(config_files)}) as run:
        leaks, histories = read_table(leakage, LEAKAGE_COLUMNS), read_table(accuracy, ACCURACY_COLUMNS)
        pictures = None
        if images and reconstruction:
            pictures = arrange_pictures(leaks, load_pictures(images, splits, reconstruction))
        page = render_page(
            leakage=leaks,
            accuracy=histories,
            metrics=read_json(metrics),
            verdicts=read_table(verdicts, VERDICT_COLUMNS),
            claims=read_json(claims),
            defenses=read_table(defense_table, DEFENSE_COLUMNS),
            params=params,
            records=[
                read_record(path)
                for path in [*list_files(federation_record, histories), *list_files(attack_record, leaks)]
            ],
            figures=[
                load_figure(name, path, caption_of[name], heading=find_figure(name, comparisons).heading)
                for name, path in figures
            ],
            config_files=config_files,
            pictures=pictures,
        )
        write_text(out, page)
        run.artifacts.append(str(out))
