"""`leakpipe plot`: draws figures."""

from pathlib import Path
from typing import Any

import click

from leakpipe.cli.options import InputFile, JsonOrFile, record_labels


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--list", "list_them", is_flag=True, help="List the figures and what each reads, and draw nothing.")
@click.option("--params", type=JsonOrFile(), help="All parameters (JSON, or a YAML file); figures take theirs from it.")
@click.option(
    "--settings", type=JsonOrFile(), help="Instead of --params: the settings that figures take (JSON, or a YAML file)."
)
@click.option("--comparisons", type=JsonOrFile(), help="With --settings: the `comparisons` section.")
@click.option("--leakage", type=InputFile, help="The leakage table (collect's output).")
@click.option("--accuracy", type=InputFile, help="The accuracy table (collect's output).")
@click.option("--identifiability", type=InputFile, help="The identifiability table (collect's output).")
@click.option("--defense-table", type=InputFile, help="The table of defences (judge's output).")
@click.option("--privacy", type=InputFile, help="The table of guarantees (judge's output).")
@click.option("--images", type=InputFile, help="The data set (prepare-data's output).")
@click.option("--split", "splits", type=InputFile, multiple=True, help="The split of a seed; repeatable.")
@click.option(
    "--reconstruction", help="Attacks' outputs: a path with {defense}, {seed}, {round}, {client} and {attack}."
)
@click.option("--folder", type=click.Path(path_type=Path), default=".", help="Folder for NAME.svg, .png and .txt.")
@click.option("--records", type=click.Path(path_type=Path), help="Folder for the run record of each figure, NAME.json.")
@record_labels
def plot(
    names: tuple[str, ...],
    list_them: bool,
    params: dict[str, Any] | None,
    settings: dict[str, Any] | None,
    comparisons: dict[str, Any] | None,
    folder: Path,
    records: Path | None,
    labels: dict[str, Any],
    **files: Any,
) -> None:
    """Draw the figures NAME from the tables, each as SVG and PNG with its caption as text.

    A comparison of the parameters is drawn as effect-COMPARISON.
    """
    from leakpipe.figures.inputs import Files
    from leakpipe.figures.registry import all_figures, find_figure
    from leakpipe.records.run_record import record_run

    if list_them:
        for each in all_figures().values():
            click.echo(f"{each.name}: {each.heading} (reads {', '.join(each.reads)})")
        return
    if not names or (params is None) == (settings is None):
        raise click.UsageError("expected the NAME of a figure, and either --params or --settings")
    if params is not None:
        from leakpipe.experiment.reading import parse_params
        from leakpipe.figures.settings import choose_settings

        settings, comparisons = choose_settings(parse_params(params, source="--params")), params.get("comparisons")
    chosen = [find_figure(name, comparisons or {}) for name in names]
    for each in chosen:
        record = records / f"{each.name}.json" if records else None
        svg, png, caption = (folder / f"{each.name}.{kind}" for kind in ("svg", "png", "txt"))
        taken = _keep_plain(each.choose(settings or {}))
        labelled = {**labels, "figure": each.name}
        with record_run(record, rule="plot", labels=labelled, params=taken, module=each.module) as run:
            each.load_and_draw(Files(**files), settings or {}).save(svg=svg, png=png, caption=caption)
            run.artifacts += [str(svg), str(png)]


def _keep_plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Names and numbers, and lists of them: no sections of the parameters."""
    return {
        name: value
        for name, value in settings.items()
        if all(isinstance(part, str | int | float) for part in (value if isinstance(value, list) else [value]))
    }
