"""`leakpipe identify`: look reconstructions up among all clients' training images."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from leakpipe.cli.cells import NAMES, Cells, each_option, require_cell
from leakpipe.cli.options import InputFile, OutputFile, record_options, settings_option, threads_option, use_threads
from leakpipe.cli.terminal import progress_bar

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from leakpipe.data.partition import Split
    from leakpipe.metrics.embedders import Embed
    from leakpipe.params.experiment import IdentifiabilityParams


@click.command()
@settings_option("identifiability", "The `identifiability` section")
@click.option("--images", type=InputFile, required=True, help="The data set (prepare-data's output).")
@click.option("--split", "splits", type=InputFile, multiple=True, required=True, help="Split of a seed; repeatable.")
@click.option("--scores", type=InputFile, required=True, help="Which image each reconstruction is of (score's output).")
@click.option(
    "--reconstruction", "reconstructions", type=InputFile, multiple=True, required=True, help="Attack's output."
)
@click.option("--global-model", "models", type=InputFile, multiple=True, help="Model before the attacked round.")
@click.option("--out", type=OutputFile, required=True, help="Table (.csv), one row per true image and embedder.")
@threads_option
@each_option
@record_options
def identify(
    identifiability: dict[str, Any],
    images: Path,
    splits: tuple[Path, ...],
    scores: Path,
    reconstructions: tuple[Path, ...],
    models: tuple[Path, ...],
    out: Path,
    threads: int,
    each: list[dict[str, str]],
    record: Path | None,
    labels: dict[str, Any],
) -> None:
    """Say whether the nearest of all clients' training images is the one that a reconstruction came from.

    --reconstruction and --global-model go together: give each as often, in the same order. Only the embedder
    `global-model` needs --global-model.
    """
    if models and len(models) != len(reconstructions):
        raise click.UsageError(
            f"--reconstruction ({len(reconstructions)}) and --global-model ({len(models)}) must be as many"
        )
    from leakpipe.params.experiment import IdentifiabilityParams
    from leakpipe.params.reading import parse_section

    settings = parse_section(IdentifiabilityParams, identifiability, source="--identifiability")
    cells = Cells(
        "identify",
        each=each,
        labels=labels,
        record=record,
        settings={**identifiability, "threads": threads},
        inputs=[images, *splits, scores, *reconstructions, *models],
    )
    if not cells:
        return
    use_threads(threads)
    import pandas as pd

    from leakpipe.cli.allocator import keep_freed_memory
    from leakpipe.data.files import load_dataset, load_split
    from leakpipe.tables.table import SCORE_COLUMNS, identifiability_columns, read_table, write_table

    keep_freed_memory()
    with progress_bar(len(reconstructions) * len(cells), "identify", "client") as bar:
        for cell in cells:
            bar.set_description(f"identify {cell}".strip(), refresh=False)
            with cells.recording(cell, identifiability) as run:
                pixels = load_dataset(images).images
                look_up = _LookUp(
                    settings=settings,
                    pixels=pixels,
                    splits={seed: split for split, seed in (load_split(each, images=len(pixels)) for each in splits)},
                    scores=read_table(cell.fill(scores), SCORE_COLUMNS),
                )
                rows: list[dict[str, Any]] = []
                for path, model in zip(reconstructions, models or [None] * len(reconstructions), strict=True):
                    rows += look_up.rows(cell.fill(path), model and cell.fill(model))
                    bar.update()
                write_table(cell.fill(out), pd.DataFrame(rows, columns=identifiability_columns(settings.top)))
                run.metrics["look_ups"] = len(rows)


@dataclass(frozen=True, kw_only=True)
class _LookUp:
    """Looks up any reconstruction; what many of them share is embedded once."""

    settings: "IdentifiabilityParams"
    pixels: "np.ndarray"
    splits: Mapping[int, "Split"]
    scores: "pd.DataFrame"
    embeds: dict[tuple[str, Path | None], "Embed"] = field(default_factory=dict)
    known: dict[tuple[str, Path | None, int], "np.ndarray"] = field(default_factory=dict)

    def rows(self, path: Path, model: Path | None) -> Iterator[dict[str, Any]]:
        """Rows of the table for one client's reconstructions."""
        import numpy as np

        from leakpipe.attacks.files import load_reconstruction
        from leakpipe.errors import LeakpipeError
        from leakpipe.metrics.identifiability import identify as look_up

        found = load_reconstruction(path)
        require_cell(path, found.cell, {}, needs=NAMES)
        seed = found.cell["seed"]
        if seed not in self.splits:
            raise LeakpipeError(f"{path}: its seed {seed} has no --split")
        clients = self.splits[seed].clients
        candidates = sorted({index for held in clients.values() for index in held})  # datalists may share images
        held = self.splits[seed].images_of(found.cell["client"])
        images, taken = self._matching(path, found.cell)
        rebuilt = found.candidates
        own = [held.index(image) for image in images]  # priors stand in the client's order
        for name in self.settings.embedders:
            embed = self._embed(name, model)
            results = look_up(
                embed(rebuilt[taken]),
                embed(found.prior[own]),
                self._candidates(name, model, seed, candidates),
                true=np.searchsorted(candidates, images),
                top=self.settings.top,
            )
            for image, reconstruction, result in zip(images, taken, results, strict=True):
                named = {"image": image, "reconstruction": reconstruction, "embedder": name}
                yield {**found.cell, **named, **result}

    def _matching(self, path: Path, cell: Mapping[str, Any]) -> tuple[list[int], list[int]]:
        """True image and reconstruction of each pair that the scores of this attack match."""
        from leakpipe.errors import LeakpipeError
        from leakpipe.tables.table import KEY

        rows = self.scores[(self.scores[KEY] == [cell[name] for name in KEY]).all(axis=1)]
        if rows.empty:
            raise LeakpipeError(f"{path}: --scores has no rows for {', '.join(f'{k} {cell[k]!r}' for k in KEY)}")
        return rows["image"].tolist(), rows["reconstruction"].tolist()

    def _embed(self, name: str, model: Path | None) -> "Embed":
        from leakpipe.federation.files import load_model
        from leakpipe.metrics.embedders import EMBEDDERS

        key = _, model = self._key(name, model)
        if key not in self.embeds:
            self.embeds[key] = EMBEDDERS[name].build(None if model is None else load_model(model))
        return self.embeds[key]

    def _candidates(self, name: str, model: Path | None, seed: int, indices: list[int]) -> "np.ndarray":
        key = (*self._key(name, model), seed)
        if key not in self.known:
            self.known[key] = self._embed(name, model)(self.pixels[indices])
        return self.known[key]

    @staticmethod
    def _key(name: str, model: Path | None) -> tuple[str, Path | None]:
        from leakpipe.metrics.embedders import EMBEDDERS

        return name, model if EMBEDDERS[name].uses_global_model else None
