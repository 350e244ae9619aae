"""`leakpipe score`: hold reconstructions against the true images."""

from pathlib import Path
from typing import Any

import click

from leakpipe.cli.cells import require_cell, require_distinct
from leakpipe.cli.options import InputFile, OutputFile, record_options, settings_option


@click.command()
@click.option("--images", type=InputFile, required=True, help="The data set (prepare-data's output).")
@click.option("--split", "splits", type=InputFile, multiple=True, required=True, help="Split of a seed; repeatable.")
@click.option(
    "--reconstruction", "reconstructions", type=InputFile, multiple=True, required=True, help="Attack's output."
)
@settings_option("scoring", "The `scoring` section")
@click.option(
    "--lpips-weights",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder with the weights of LPIPS, if not torch's own.",
)
@click.option("--out", type=OutputFile, required=True, help="Table (.csv), one row per true image.")
@record_options
def score(
    images: Path,
    splits: tuple[Path, ...],
    reconstructions: tuple[Path, ...],
    scoring: dict[str, Any],
    lpips_weights: Path | None,
    out: Path,
    record: Path | None,
    labels: dict[str, Any],
) -> None:
    """Score reconstructions: SSIM, PSNR, MSE, RDLV, text read per true image, each held against one reconstruction."""
    import pandas as pd

    from leakpipe.attacks.files import load_reconstruction
    from leakpipe.data.files import load_dataset, load_split
    from leakpipe.errors import LeakpipeError
    from leakpipe.metrics.labels import label_accuracy
    from leakpipe.metrics.legibility import score_texts
    from leakpipe.metrics.score import score_images
    from leakpipe.params.experiment import ScoringParams
    from leakpipe.params.reading import parse_section
    from leakpipe.records.run_record import record_run
    from leakpipe.tables.table import write_scores

    with record_run(record, rule="score", labels=labels, params=scoring) as run:
        settings = parse_section(ScoringParams, scoring, source="--scoring")
        lpips = None
        if settings.lpips:
            from leakpipe.metrics.lpips import load_lpips  # and torch, which takes seconds

            lpips = load_lpips(lpips_weights)
        dataset = load_dataset(images)
        by_seed = {seed: split for split, seed in map(load_split, splits)}
        rows, cells = [], []
        for path in reconstructions:
            found = load_reconstruction(path)
            require_cell(path, found.cell, labels)
            cells.append((path, found.cell))
            seed, client = found.cell["seed"], found.cell["client"]
            if seed not in by_seed:
                raise LeakpipeError(f"{path}: its seed {seed} has no --split")
            held = list(by_seed[seed].clients[client])
            accuracy = label_accuracy(found.labels, dataset.labels[held])
            scores = score_images(
                found.images, dataset.images[held], found.prior, assignment=settings.assignment, lpips=lpips
            )
            for scored in scores:
                shared = {"label_accuracy": accuracy, "iterations": found.iterations}
                position = scored["position"]
                rebuilt, prior = found.images[scored["reconstruction"]], found.prior[position]
                shared |= score_texts(rebuilt, prior, dataset.texts_of(held[position]))
                rows.append({**found.cell, **scored, **shared, "image": held[position]})
        require_distinct(cells)
        write_scores(out, rows)
        run.metrics["images"] = len(rows)
        means = pd.DataFrame(rows).groupby("client")[["ssim", "ssim_prior"]].mean()
        run.metrics |= {f"{client}.{name}": value for name in means for client, value in means[name].items()}
