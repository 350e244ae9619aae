"""`leakpipe score`: compare reconstructions with the true images."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from leakpipe.cli.cells import NAMES, Cells, each_option, require_cell, require_distinct
from leakpipe.cli.options import InputFile, OutputFile, record_options, settings_option

if TYPE_CHECKING:
    from leakpipe.data.images import LabeledImages
    from leakpipe.data.partition import Split
    from leakpipe.metrics.score import PerceptualDistance
    from leakpipe.params.experiment import ScoringParams


@click.command()
@click.option("--images", type=InputFile, required=True, help="The data set (prepare-data's output).")
@click.option("--split", "splits", type=InputFile, multiple=True, required=True, help="Split of a seed; repeatable.")
@click.option(
    "--reconstruction", "reconstructions", type=InputFile, multiple=True, required=True, help="Attack's output."
)
@settings_option("scoring", "The `scoring` section")
@click.option("--out", type=OutputFile, required=True, help="Table (.csv), one row per true image.")
@each_option
@record_options
def score(
    images: Path,
    splits: tuple[Path, ...],
    reconstructions: tuple[Path, ...],
    scoring: dict[str, Any],
    out: Path,
    each: list[dict[str, str]],
    record: Path | None,
    labels: dict[str, Any],
) -> None:
    """Score reconstructions: SSIM, PSNR, MSE, RDLV and legible text of the one matched to each true image."""
    from leakpipe.params.experiment import ScoringParams
    from leakpipe.params.reading import parse_section

    settings = parse_section(ScoringParams, scoring, source="--scoring")
    cells = Cells(
        "score",
        each=each,
        labels=labels,
        record=record,
        settings=scoring,
        inputs=[images, *splits, *reconstructions],
    )
    if not cells:
        return
    import pandas as pd

    from leakpipe.data.files import load_dataset, load_split
    from leakpipe.tables.table import write_scores

    for cell in cells:
        with cells.recording(cell, scoring) as run:
            lpips = None
            if settings.lpips:
                from leakpipe.metrics.lpips import load_lpips  # and torch, which takes seconds

                lpips = load_lpips()
            dataset = load_dataset(images)
            by_seed = {seed: split for split, seed in (load_split(each, images=len(dataset.images)) for each in splits)}
            rows, found = [], []
            for path in map(cell.fill, reconstructions):
                of, scored = _score(path, dataset, by_seed, settings, labels=cell.labels, lpips=lpips)
                found.append((path, of))
                rows += scored
            require_distinct(found)
            write_scores(cell.fill(out), rows)
            run.metrics["images"] = len(rows)
            means = pd.DataFrame(rows).groupby("client")[["ssim", "ssim_prior"]].mean()
            run.metrics |= {f"{client}.{name}": value for name in means for client, value in means[name].items()}


def _score(
    path: Path,
    dataset: "LabeledImages",
    by_seed: Mapping[int, "Split"],
    settings: "ScoringParams",
    *,
    labels: Mapping[str, str],
    lpips: "PerceptualDistance | None",
) -> tuple[Mapping[str, Any], list[dict[str, Any]]]:
    """Cell and rows of one client's reconstructions: a row for each of its true images."""
    from leakpipe.attacks.files import load_reconstruction
    from leakpipe.errors import LeakpipeError
    from leakpipe.metrics.labels import label_accuracy
    from leakpipe.metrics.legibility import score_texts
    from leakpipe.metrics.score import score_images

    found = load_reconstruction(path)
    require_cell(path, found.cell, labels, needs=NAMES)
    seed, client = found.cell["seed"], found.cell["client"]
    if seed not in by_seed:
        raise LeakpipeError(f"{path}: its seed {seed} has no --split")
    held = by_seed[seed].images_of(client)
    candidates = found.candidates
    accuracy = label_accuracy(found.labels, dataset.labels[held])
    scores = score_images(candidates, dataset.images[held], found.prior, assignment=settings.assignment, lpips=lpips)
    rows = []
    for scored in scores:
        shared = {"label_accuracy": accuracy, "iterations": found.iterations}
        position = scored["position"]
        rebuilt, prior = candidates[scored["reconstruction"]], found.prior[position]
        shared |= score_texts(rebuilt, prior, dataset.texts_of(held[position]))
        rows.append({**found.cell, **scored, **shared, "image": held[position]})
    return found.cell, rows
